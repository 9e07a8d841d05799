use super::*;

const KINDS: [KeyKind; 8] = [
    KeyKind::P256,
    KeyKind::P384,
    KeyKind::P521,
    KeyKind::Secp256k1,
    KeyKind::Ed25519,
    KeyKind::MlDsa44,
    KeyKind::MlDsa65,
    KeyKind::MlDsa87,
];

/// The schemes of a kind, each with a form of message that it takes.
fn schemes(kind: KeyKind) -> Vec<(SignatureScheme, Message<'static>)> {
    use SignatureScheme::{Ecdsa, Ed25519, Ed25519ph, MlDsa, RsaPkcs1, RsaPss};
    let raw = Message::Raw(b"a message");
    let digest = Message::Digest(&[7; 64]);
    match kind {
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => {
            [HashKind::Sha256, HashKind::Sha384, HashKind::Sha512]
                .into_iter()
                .flat_map(|hash| [(RsaPss(hash), raw), (RsaPkcs1(hash), raw)])
                .collect()
        }
        KeyKind::P256 | KeyKind::Secp256k1 => vec![(Ecdsa(HashKind::Sha256), raw)],
        KeyKind::P384 => vec![(Ecdsa(HashKind::Sha384), raw)],
        KeyKind::P521 => vec![(Ecdsa(HashKind::Sha512), raw), (Ecdsa(HashKind::Sha512), digest)],
        KeyKind::Ed25519 => vec![(Ed25519, raw), (Ed25519ph, digest)],
        KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => {
            vec![(MlDsa, raw), (MlDsa, Message::ExternalMu(&[7; 64]))]
        }
    }
}

/// Signs with every scheme, through both DER forms.
fn round_trip(kind: KeyKind) {
    let key = PrivateKey::generate(kind).unwrap();
    let der = key.to_pkcs8().unwrap();
    let again = PrivateKey::from_pkcs8(kind, &der).unwrap();
    assert_eq!((again.kind(), &*again.to_pkcs8().unwrap()), (kind, &*der));
    let spki = key.public_key().to_spki().unwrap();
    assert_eq!(again.public_key().to_spki().unwrap(), spki);
    let public = PublicKey::from_spki(kind, &spki).unwrap();
    for (scheme, message) in schemes(kind) {
        let mut signature = again.sign(scheme, message).unwrap();
        assert_eq!(public.verify(scheme, message, &signature), Ok(()), "{kind:?} {scheme:?}");
        *signature.last_mut().unwrap() ^= 1;
        let refused = Err(CryptoError::NotAuthentic);
        assert_eq!(public.verify(scheme, message, &signature), refused, "{kind:?} {scheme:?}");
        assert_eq!(public.verify(scheme, message, &[]), refused, "{kind:?} {scheme:?}");
    }
}

#[test]
fn every_kind_survives_its_der_forms_and_signs() {
    KINDS.into_iter().for_each(round_trip);
    round_trip(KeyKind::Rsa2048);
}

#[test]
fn oaep_takes_its_longest_plaintext_and_not_one_byte_more() {
    let kind = KeyKind::Rsa2048;
    let key = PrivateKey::generate(kind).unwrap();
    for (hash, longest) in [(HashKind::Sha1, 214), (HashKind::Sha256, 190)] {
        assert_eq!(max_plaintext(kind, hash), Some(longest));
        let plaintext = vec![9; longest];
        let sealed = key.public_key().encrypt(hash, &plaintext).unwrap();
        assert_eq!(*key.decrypt(hash, &sealed).unwrap(), plaintext);
        let too_long = key.public_key().encrypt(hash, &vec![9; longest + 1]);
        assert_eq!(too_long, Err(CryptoError::TooLong));
    }
    assert_eq!(max_plaintext(KeyKind::Rsa3072, HashKind::Sha1), Some(342));
    assert_eq!(max_plaintext(KeyKind::Rsa3072, HashKind::Sha256), Some(318));
    assert_eq!(max_plaintext(KeyKind::Rsa4096, HashKind::Sha1), Some(470));
    assert_eq!(max_plaintext(KeyKind::Rsa4096, HashKind::Sha256), Some(446));
    assert_eq!(max_plaintext(KeyKind::P256, HashKind::Sha256), None);
}

#[test]
fn a_ciphertext_fails_in_one_way_only() {
    let key = PrivateKey::generate(KeyKind::Rsa2048).unwrap();
    let sealed = key.public_key().encrypt(HashKind::Sha256, b"x").unwrap();
    let mut changed = sealed.clone();
    changed[100] ^= 1;
    let wrong: [&[u8]; 6] = [&[], &[1], &[0; 256], &[0xff; 256], &[1; 257], &changed];
    for ciphertext in wrong {
        let refused = key.decrypt(HashKind::Sha256, ciphertext).unwrap_err();
        assert_eq!(refused, CryptoError::NotAuthentic);
    }
    assert!(key.decrypt(HashKind::Sha1, &sealed).is_err(), "another hash function");
}

#[test]
fn two_parties_agree_and_points_of_other_curves_are_refused() {
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521] {
        let (one, two) = (PrivateKey::generate(kind).unwrap(), PrivateKey::generate(kind).unwrap());
        let shared = one.agree(&two.public_key().to_spki().unwrap()).unwrap();
        assert_eq!(shared, two.agree(&one.public_key().to_spki().unwrap()).unwrap());
        let foreign = PrivateKey::generate(KeyKind::Secp256k1).unwrap().public_key();
        let refused = one.agree(&foreign.to_spki().unwrap());
        assert_eq!(refused.unwrap_err(), CryptoError::MalformedKey);
    }
}

#[test]
fn what_a_key_cannot_do_is_refused() {
    let ec = PrivateKey::generate(KeyKind::P256).unwrap();
    let ed = PrivateKey::generate(KeyKind::Ed25519).unwrap();
    let raw = Message::Raw(b"m");
    let no = Err(CryptoError::NotForKey);
    assert_eq!(ec.sign(SignatureScheme::Ecdsa(HashKind::Sha384), raw), no);
    assert_eq!(ec.sign(SignatureScheme::RsaPss(HashKind::Sha256), raw), no);
    assert_eq!(ec.sign(SignatureScheme::Ecdsa(HashKind::Sha256), Message::ExternalMu(b"")), no);
    assert_eq!(ed.sign(SignatureScheme::Ed25519, Message::Digest(&[0; 64])), no);
    assert_eq!(ed.sign(SignatureScheme::Ed25519ph, raw), no);
    assert_eq!(ec.decrypt(HashKind::Sha256, &[0; 256]).unwrap_err(), CryptoError::NotForKey);
    let short = ec.sign(SignatureScheme::Ecdsa(HashKind::Sha256), Message::Digest(&[0; 31]));
    assert_eq!(short, Err(CryptoError::DigestLength));
}

#[test]
fn a_key_is_never_read_as_another_kind() {
    for kind in KINDS {
        let key = PrivateKey::generate(kind).unwrap();
        let (der, spki) = (key.to_pkcs8().unwrap(), key.public_key().to_spki().unwrap());
        for other in KINDS.into_iter().chain([KeyKind::Rsa2048]).filter(|other| *other != kind) {
            assert!(PrivateKey::from_pkcs8(other, &der).is_err(), "{kind:?} as {other:?}");
            assert!(PublicKey::from_spki(other, &spki).is_err(), "{kind:?} as {other:?}");
        }
    }
}

/// Every byte of each DER form set to some values, and every length cut: none may panic.
#[test]
fn broken_der_is_an_error_and_never_a_panic() {
    for kind in KINDS.into_iter().chain([KeyKind::Rsa2048]) {
        let key = PrivateKey::generate(kind).unwrap();
        let der = key.to_pkcs8().unwrap().to_vec();
        let spki = key.public_key().to_spki().unwrap();
        let step = (der.len() / 64).max(1);
        for at in (0..der.len()).step_by(step) {
            assert!(PrivateKey::from_pkcs8(kind, &der[..at]).is_err());
            for value in [0, 1, 0x30, 0x7f, 0x80, 0xff] {
                let mut changed = der.clone();
                changed[at] = value;
                drop(PrivateKey::from_pkcs8(kind, &changed));
            }
        }
        for at in (0..spki.len()).step_by((spki.len() / 64).max(1)) {
            assert!(PublicKey::from_spki(kind, &spki[..at]).is_err());
            let mut changed = spki.clone();
            changed[at] ^= 0x81;
            drop(PublicKey::from_spki(kind, &changed));
        }
    }
}

#[test]
fn debug_shows_the_kind_and_no_number() {
    let key = PrivateKey::generate(KeyKind::P256).unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(P256)");
}
