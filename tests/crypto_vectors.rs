//! Published vectors for every primitive that has a public interface fit for them. HKDF and
//! Argon2id are checked beside their code, because their interfaces fix the label and the cost.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use kmsfs::crypto::aead::AeadKey;
use kmsfs::crypto::bulk::BulkKey;
use kmsfs::crypto::hybrid;
use kmsfs::crypto::passphrase::{self, Cost};
use kmsfs::crypto::siv::SivKey;
use kmsfs::crypto::xaes::{self, XaesKey};
use kmsfs::crypto::{Secret, hash};

/// McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13 to 16:
/// key, nonce, plaintext, associated data, ciphertext and tag.
const GCM: [[&str; 5]; 4] = [
    [ZERO_KEY, "000000000000000000000000", "", "", "530f8afbc74536b9a963b4f1c4cb738b"],
    [
        ZERO_KEY,
        "000000000000000000000000",
        "00000000000000000000000000000000",
        "",
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
    ],
    [
        GCM_KEY,
        "cafebabefacedbaddecaf888",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        "",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015adb094dac5d93471bdec1a502270e3cc6c",
    ],
    [
        GCM_KEY,
        "cafebabefacedbaddecaf888",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
    ],
];
const ZERO_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const GCM_KEY: &str = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";

#[test]
fn aes_256_gcm_agrees_with_its_paper_on_both_backends() {
    for [key, nonce, plain, aad, sealed] in GCM {
        let key = secret::<32>(key);
        let nonce = hex(nonce).try_into().unwrap();
        let (plain, aad, sealed) = (hex(plain), hex(aad), hex(sealed));
        let (cipher, tag) = sealed.split_last_chunk().unwrap();

        let mut buf = plain.clone();
        assert_eq!(&AeadKey::new(&key).seal_in_place(&nonce, &aad, &mut buf).unwrap(), tag);
        assert_eq!(buf, cipher);
        AeadKey::new(&key).open_in_place(&nonce, &aad, &mut buf, tag).unwrap();
        assert_eq!(buf, plain);

        assert_eq!(&BulkKey::new(&key).seal_to(&nonce, &aad, &plain, &mut buf).unwrap(), tag);
        assert_eq!(buf, cipher);
        BulkKey::new(&key).open_to(&nonce, &aad, cipher, tag, &mut buf).unwrap();
        assert_eq!(buf, plain);
    }
}

/// C2SP XAES-256-GCM: the first vector has MSB(L) = 0, the second MSB(L) = 1.
#[test]
fn xaes_256_gcm_agrees_with_its_specification() {
    let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
    let cases: [(u8, &str, &str, &str); 2] = [
        (
            1,
            "",
            "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
            "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
        ),
        (
            3,
            "c2sp.org/XAES-256-GCM",
            "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
        ),
    ];
    for (byte, aad, derived, sealed) in cases {
        let key = Secret::filled(|k: &mut [u8; 32]| k.fill(byte));
        assert_eq!(xaes::derive_key(&key, b"ABCDEFGHIJKL"), secret(derived));
        let whole = [nonce.as_slice(), &hex(sealed)].concat();
        assert_eq!(xaes::open(&key, aad.as_bytes(), &whole).unwrap().as_slice(), b"XAES-256-GCM");
        let mut buf = *b"XAES-256-GCM";
        let tag = XaesKey::new(&key).seal_in_place(nonce, aad.as_bytes(), &mut buf).unwrap();
        assert_eq!([buf.as_slice(), &tag].concat(), hex(sealed));
    }
}

/// C2SP XAES-256-GCM, accumulated: everything is drawn from SHAKE-128, the output hashed by it.
#[test]
fn xaes_256_gcm_agrees_over_ten_thousand_random_messages() {
    let (mut rng, mut sum) = (Shake128::default(), Shake128::default());
    assert_eq!(Shake128::default().read(16), hex("7f9c2ba4e88f827d616045507605853e"));
    for _ in 0..10_000 {
        let key = Secret::<32>::from_slice(&rng.read(32)).unwrap();
        let nonce: [u8; 24] = rng.read(24).try_into().unwrap();
        let (mut plain, aad) = (rng.read_vector(), rng.read_vector());
        let tag = XaesKey::new(&key).seal_in_place(&nonce, &aad, &mut plain).unwrap();
        sum.write(&plain);
        sum.write(&tag);
    }
    assert_eq!(
        sum.read(32),
        hex("e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939")
    );
}

#[test]
fn aes_256_siv_agrees_with_wycheproof_failures_included() {
    let (mut valid, mut invalid) = (0, 0);
    for line in include_str!("vectors/aes_siv_512.txt").lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<_> = line.split(' ').collect();
        let [result, key, aad, plain, sealed] = fields[..] else { panic!("{line}") };
        let key = SivKey::new(&secret(key));
        let (aad, plain, sealed) = (hex(aad), hex(plain), hex(sealed));
        if result == "valid" {
            assert_eq!(key.seal(&[&aad], &plain), sealed, "{line}");
            assert_eq!(key.open(&[&aad], &sealed).unwrap(), plain, "{line}");
            valid += 1;
        } else {
            assert!(key.open(&[&aad], &sealed).is_err(), "{line}");
            invalid += 1;
        }
    }
    assert_eq!((valid, invalid), (39, 36));
}

/// Made with OpenSSL's Argon2id.
#[test]
fn hpke_agrees_with_its_rfc_and_opens_nothing_else() {
    let text = include_str!("vectors/hpke.txt");
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        hex(line.unwrap())
    };
    let private = hybrid::PrivateKey::from_bytes(&field("private")).unwrap();
    assert_eq!(private.public().unwrap(), field("public"));
    let sealed =
        hybrid::Sealed { encapsulated: field("encapsulated"), ciphertext: field("ciphertext") };
    let (info, aad) = (field("info"), field("aad"));
    assert_eq!(*private.open(&sealed, &info, &aad).unwrap(), field("plaintext"));

    let own = hybrid::seal(&field("public"), &info, &aad, b"message").unwrap();
    assert_eq!(*private.open(&own, &info, &aad).unwrap(), b"message");
    assert!(private.open(&own, b"other", &aad).is_err());
    assert!(private.open(&own, &info, b"other").is_err());
    let other = hybrid::PrivateKey::generate().unwrap();
    assert!(other.open(&own, &info, &aad).is_err());
    for at in [0, 1, 132] {
        let mut changed = own.clone();
        changed.encapsulated[at] ^= 1;
        assert!(private.open(&changed, &info, &aad).is_err(), "byte {at}");
    }
    let mut changed = own;
    changed.ciphertext[3] ^= 1;
    assert!(private.open(&changed, &info, &aad).is_err());
    assert!(hybrid::seal(&[4; 133], &info, &aad, b"").is_err());
    assert!(hybrid::PrivateKey::from_bytes(&[0; 66]).is_err());
}

#[test]
fn argon2id_agrees_with_another_implementation() {
    let cost = Cost::new(8192, 3, 4).unwrap();
    assert_eq!(
        passphrase::derive(b"kmsfs passphrase", b"somesaltsomesalt", cost).unwrap(),
        secret("f1dd669872615508bbf6b1949c60a1229da80d4e5d0682018b57ac146e2b65af")
    );
}

/// FIPS 180-4, one-block and two-block messages.
#[test]
fn sha_256_agrees_with_its_standard() {
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(hash::sha256(&[b"a", b"bc"]).as_slice(), hex(expected));
    let message = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    let expected = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
    assert_eq!(hash::sha256(&[message]).as_slice(), hex(expected));
}

fn secret<const N: usize>(text: &str) -> Secret<N> {
    Secret::from_slice(&hex(text)).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

/// SHAKE-128 (FIPS 202), only for the accumulated vectors.
#[derive(Default)]
struct Shake128 {
    state: [u64; 25],
    at: usize,
    reading: bool,
}

impl Shake128 {
    const RATE: usize = 168;

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.xor(self.at, *byte);
            self.at += 1;
            if self.at == Self::RATE {
                self.permute();
            }
        }
    }

    fn read(&mut self, len: usize) -> Vec<u8> {
        if !self.reading {
            self.xor(self.at, 0x1f);
            self.xor(Self::RATE - 1, 0x80);
            self.permute();
            self.reading = true;
        }
        let mut out = Vec::new();
        for _ in 0..len {
            if self.at == Self::RATE {
                self.permute();
            }
            out.push(self.state[self.at / 8].to_le_bytes()[self.at % 8]);
            self.at += 1;
        }
        out
    }

    fn read_vector(&mut self) -> Vec<u8> {
        let len = self.read(1)[0];
        self.read(len.into())
    }

    fn xor(&mut self, at: usize, byte: u8) {
        self.state[at / 8] ^= u64::from(byte) << (8 * (at % 8));
    }

    fn permute(&mut self) {
        let mut lfsr = 1_u8;
        for _ in 0..24 {
            keccak_round(&mut self.state, &mut lfsr);
        }
        self.at = 0;
    }
}

fn keccak_round(state: &mut [u64; 25], lfsr: &mut u8) {
    let column = |s: &[u64; 25], x: usize| (0..5).fold(0, |sum, y| sum ^ s[x + 5 * y]);
    let sums: [u64; 5] = std::array::from_fn(|x| column(state, x));
    for x in 0..5 {
        let theta = sums[(x + 4) % 5] ^ sums[(x + 1) % 5].rotate_left(1);
        (0..5).for_each(|y| state[x + 5 * y] ^= theta);
    }
    let (mut x, mut y, mut lane) = (1, 0, state[1]);
    for t in 0..24_u32 {
        (x, y) = (y, (2 * x + 3 * y) % 5);
        let rotated = lane.rotate_left((t + 1) * (t + 2) / 2);
        lane = std::mem::replace(&mut state[x + 5 * y], rotated);
    }
    for y in 0..5 {
        let row: [u64; 5] = std::array::from_fn(|x| state[x + 5 * y]);
        (0..5).for_each(|x| state[x + 5 * y] = row[x] ^ (!row[(x + 1) % 5] & row[(x + 2) % 5]));
    }
    for j in 0..7 {
        if *lfsr & 1 != 0 {
            state[0] ^= 1 << ((1_u32 << j) - 1);
        }
        *lfsr = (*lfsr << 1) ^ ((*lfsr >> 7) * 0x71);
    }
}
