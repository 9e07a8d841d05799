//! Published vectors for the primitives behind users' keys: RSA, ECDSA, ECDH, Ed25519, ML-DSA,
//! HMAC and AES key wrap. Each vector says what is expected, failures included.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use kmsfs::crypto::asym::{KeyKind, Message, PrivateKey, PublicKey, SignatureScheme};
use kmsfs::crypto::digest::HashKind;
use kmsfs::crypto::{CryptoError, keywrap, mac};

#[test]
fn rsa_oaep_opens_what_is_sound_and_nothing_else() {
    let mut key = None;
    let counted = count(include_str!("vectors/rsa_oaep.txt"), |fields| match fields {
        ["key", kind_, hash_, der] => {
            let private = PrivateKey::from_pkcs8(kind(kind_), &hex(der)).unwrap();
            key = Some((private, hash(hash_)));
            None
        }
        [result, plaintext, ciphertext] => {
            let (key, hash) = key.as_ref().unwrap();
            let opened = key.decrypt(*hash, &hex(ciphertext));
            match *result {
                "invalid" => assert_eq!(opened.unwrap_err(), CryptoError::NotAuthentic),
                _ => assert_eq!(*opened.unwrap(), hex(plaintext)),
            }
            Some(*result == "valid")
        }
        _ => panic!("{fields:?}"),
    });
    assert_eq!(counted, (12, 12));
}

#[test]
fn rsa_signatures_agree_and_demand_the_salt_length_of_the_digest() {
    let mut key = None;
    let counted = count(include_str!("vectors/rsa_signature.txt"), |fields| match fields {
        ["key", kind_, scheme, hash_, der] => {
            let scheme = match *scheme {
                "pss" => SignatureScheme::RsaPss(hash(hash_)),
                _ => SignatureScheme::RsaPkcs1(hash(hash_)),
            };
            key = Some((PublicKey::from_spki(kind(kind_), &hex(der)).unwrap(), scheme));
            None
        }
        [result, message, signature] => {
            let (key, scheme) = key.as_ref().unwrap();
            Some(verified(key, *scheme, result, message, signature))
        }
        _ => panic!("{fields:?}"),
    });
    assert_eq!(counted, (15, 31));
}

#[test]
fn ecdsa_agrees_on_each_curve() {
    let mut key = None;
    let counted = count(include_str!("vectors/ecdsa.txt"), |fields| match fields {
        ["key", kind_, der] => {
            let scheme = SignatureScheme::Ecdsa(match *kind_ {
                "P384" => HashKind::Sha384,
                "P521" => HashKind::Sha512,
                _ => HashKind::Sha256,
            });
            key = Some((PublicKey::from_spki(kind(kind_), &hex(der)).unwrap(), scheme));
            None
        }
        [result, message, signature] => {
            let (key, scheme) = key.as_ref().unwrap();
            Some(verified(key, *scheme, result, message, signature))
        }
        _ => panic!("{fields:?}"),
    });
    assert_eq!(counted, (36, 52));
}

#[test]
fn ed25519_agrees_and_takes_no_malleable_signature() {
    let mut key = None;
    let counted = count(include_str!("vectors/ed25519.txt"), |fields| match fields {
        ["key", der] => {
            key = Some(PublicKey::from_spki(KeyKind::Ed25519, &hex(der)).unwrap());
            None
        }
        [result, message, signature] => {
            let key = key.as_ref().unwrap();
            Some(verified(key, SignatureScheme::Ed25519, result, message, signature))
        }
        _ => panic!("{fields:?}"),
    });
    assert_eq!(counted, (30, 53));
}

/// A compressed point is "acceptable": it may be refused or must give the right secret.
#[test]
fn ecdh_agrees_and_refuses_points_off_the_curve() {
    let counted = count(include_str!("vectors/ecdh.txt"), |fields| {
        let [result, kind_, own, peer, shared, flags] = fields else { panic!("{fields:?}") };
        let own = PrivateKey::from_pkcs8(kind(kind_), &hex(own)).unwrap();
        match (own.agree(&hex(peer)), *result) {
            (Ok(secret), "valid" | "acceptable") => assert_eq!(*secret, hex(shared), "{flags}"),
            (Ok(_), _) => panic!("accepted a peer with {flags}"),
            (Err(error), "valid") => panic!("{error} for {flags}"),
            (Err(error), _) => assert_eq!(error, CryptoError::MalformedKey, "{flags}"),
        }
        Some(*result == "valid")
    });
    assert_eq!(counted, (15, 21));
}

#[test]
fn hmac_agrees_and_takes_no_shortened_tag() {
    let counted = count(include_str!("vectors/hmac.txt"), |fields| {
        let [result, hash_, key, message, tag] = fields else { panic!("{fields:?}") };
        let (hash, key, message, tag) = (hash(hash_), hex(key), hex(message), hex(tag));
        let checked = mac::verify(hash, &key, &message, &tag);
        if *result == "valid" {
            assert_eq!(mac::generate(hash, &key, &message), Ok(tag));
            assert_eq!(checked, Ok(()));
        } else {
            assert_eq!(checked, Err(CryptoError::NotAuthentic), "{result}");
        }
        Some(*result == "valid")
    });
    assert_eq!(counted, (36, 24));
}

/// Some valid vectors wrap fewer bytes than a key has; the padding is the same.
#[test]
fn aes_key_wrap_with_padding_agrees() {
    let counted = count(include_str!("vectors/aes_kwp.txt"), |fields| {
        let [result, key, material, wrapped] = fields else { panic!("{fields:?}") };
        let (key, material, wrapped) = (hex(key), hex(material), hex(wrapped));
        let opened = keywrap::unwrap(&key, &wrapped);
        if *result == "invalid" {
            assert_eq!(opened.unwrap_err(), CryptoError::NotAuthentic);
        } else {
            assert_eq!(*opened.unwrap(), material);
            assert_eq!(keywrap::wrap(&key, &material).unwrap(), wrapped);
        }
        Some(*result != "invalid")
    });
    assert_eq!(counted, (25, 35));
}

#[test]
fn ml_dsa_agrees_in_each_size_also_over_an_external_mu() {
    let mut key = None;
    let counted = count(include_str!("vectors/ml_dsa.txt"), |fields| match fields {
        ["key", kind_, der] => {
            key = Some(PublicKey::from_spki(kind(kind_), &hex(der)).unwrap());
            None
        }
        ["seed", kind_, der, message, mu] => {
            let key = key.as_ref().unwrap();
            let private = PrivateKey::from_pkcs8(kind(kind_), &hex(der)).unwrap();
            assert_eq!(private.public_key().to_spki(), key.to_spki());
            let (message, mu) = (hex(message), hex(mu));
            let forms = [Message::Raw(&message), Message::ExternalMu(&mu)];
            for (signed, checked) in [(forms[0], forms[1]), (forms[1], forms[0])] {
                let signature = private.sign(SignatureScheme::MlDsa, signed).unwrap();
                key.verify(SignatureScheme::MlDsa, checked, &signature).unwrap();
            }
            None
        }
        [result, message, signature, _flags] => {
            let key = key.as_ref().unwrap();
            Some(verified(key, SignatureScheme::MlDsa, result, message, signature))
        }
        _ => panic!("{fields:?}"),
    });
    assert_eq!(counted, (3, 6));
}

/// Checks one signature against what its vector expects; true for a valid one. The "acceptable"
/// ones are PKCS #1 paddings without their NULL: refused.
fn verified(
    key: &PublicKey,
    scheme: SignatureScheme,
    result: &str,
    message: &str,
    signature: &str,
) -> bool {
    let checked = key.verify(scheme, Message::Raw(&hex(message)), &hex(signature));
    let expected = if result == "valid" { Ok(()) } else { Err(CryptoError::NotAuthentic) };
    assert_eq!(checked, expected, "{result} {message} {signature}");
    result == "valid"
}

/// Runs every line; counts the valid and the other ones.
fn count(text: &str, mut run: impl FnMut(&[&str]) -> Option<bool>) -> (usize, usize) {
    let (mut valid, mut other) = (0, 0);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match run(&line.split(' ').collect::<Vec<_>>()) {
            Some(true) => valid += 1,
            Some(false) => other += 1,
            None => {}
        }
    }
    (valid, other)
}

fn kind(name: &str) -> KeyKind {
    match name {
        "Rsa2048" => KeyKind::Rsa2048,
        "Rsa3072" => KeyKind::Rsa3072,
        "Rsa4096" => KeyKind::Rsa4096,
        "P256" => KeyKind::P256,
        "P384" => KeyKind::P384,
        "P521" => KeyKind::P521,
        "Secp256k1" => KeyKind::Secp256k1,
        "MlDsa44" => KeyKind::MlDsa44,
        "MlDsa65" => KeyKind::MlDsa65,
        "MlDsa87" => KeyKind::MlDsa87,
        _ => panic!("{name}"),
    }
}

fn hash(name: &str) -> HashKind {
    match name {
        "sha1" => HashKind::Sha1,
        "sha224" => HashKind::Sha224,
        "sha256" => HashKind::Sha256,
        "sha384" => HashKind::Sha384,
        "sha512" => HashKind::Sha512,
        _ => panic!("{name}"),
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}
