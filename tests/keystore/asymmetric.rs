//! Keys with a private and a public half, HMAC keys, key pairs and random bytes.

use kmsfs::crypto::digest::HashKind;
use kmsfs::keystore::{
    Caller, CreateKey, EncryptionAlgorithm, EncryptionContext, KeyRef, KeySpec, KeyUsage, Keystore,
    KeystoreError, MacAlgorithm, MessageType, ReEncryptDestination, ReEncryptSource,
    SigningAlgorithm,
};

use crate::fixture::{Fixture, day};
use crate::openssl::OpenSsl;

use KeyUsage::{EncryptDecrypt, GenerateVerifyMac, KeyAgreement, SignVerify};
use MessageType::{Digest, ExternalMu, Raw};

pub(crate) fn make(keystore: &Keystore, spec: KeySpec, usage: KeyUsage) -> KeyRef {
    let request = CreateKey { spec: Some(spec), usage: Some(usage), ..CreateKey::default() };
    let made = keystore.create_key(request, day(0)).unwrap();
    assert_eq!((made.key_spec, made.key_usage), (spec, usage));
    made.key_id.into()
}

fn said<T>(result: Result<T, KeystoreError>) -> (&'static str, String) {
    let error = result.map(drop).unwrap_err();
    (error.aws_name(), error.to_string())
}

fn arn(keystore: &Keystore, key: &KeyRef) -> String {
    keystore.describe_key(key).unwrap().arn.to_string()
}

#[test]
fn every_signing_key_signs_what_it_and_its_public_key_verify_after_a_restart() {
    let f = Fixture::new();
    for spec in KeySpec::ALL.iter().copied().filter(|spec| !spec.signing_algorithms().is_empty()) {
        // The larger RSA keys differ in size only, and take long to make.
        if matches!(spec, KeySpec::Rsa3072 | KeySpec::Rsa4096) {
            continue;
        }
        let key = make(&f.keystore, spec, SignVerify);
        let again = f.reopen();
        for algorithm in spec.signing_algorithms() {
            let form = if *algorithm == SigningAlgorithm::Ed25519PhSha512 { Digest } else { Raw };
            let message = [7; 64];
            let signed = f.keystore.sign(&key, *algorithm, form, &message).unwrap();
            again.verify_signature(&key, *algorithm, form, &message, &signed.signature).unwrap();
            let other = [8; 64];
            let refused = again.verify_signature(&key, *algorithm, form, &other, &signed.signature);
            assert_eq!(said(refused).0, "KMSInvalidSignatureException", "{algorithm}");
        }
        assert_eq!(again.get_public_key(&key).unwrap(), f.keystore.get_public_key(&key).unwrap());
    }
    assert!(f.keystore.verify().unwrap().is_clean());
}

#[test]
fn a_message_and_its_digest_have_the_same_signature_check() {
    let f = Fixture::new();
    let key = make(&f.keystore, KeySpec::EccNistP384, SignVerify);
    let algorithm = SigningAlgorithm::EcdsaSha384;
    let digest = HashKind::Sha384.digest(b"message");
    let signed = f.keystore.sign(&key, algorithm, Digest, &digest).unwrap();
    f.keystore.verify_signature(&key, algorithm, Raw, b"message", &signed.signature).unwrap();
    assert_eq!(
        said(f.keystore.sign(&key, algorithm, Digest, &digest[1..])),
        ("ValidationException", "Digest is invalid length for algorithm ECDSA_SHA_384.".to_owned())
    );
}

/// OpenSSL 3.0 knows all of these; PSS with a salt as long as the digest.
#[test]
fn openssl_verifies_our_signatures() {
    let f = Fixture::new();
    let pss = "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest";
    for (spec, algorithm, options) in [
        (KeySpec::Rsa2048, SigningAlgorithm::RsassaPssSha256, format!("-sha256 {pss}")),
        (KeySpec::Rsa2048, SigningAlgorithm::RsassaPssSha512, format!("-sha512 {pss}")),
        (KeySpec::Rsa2048, SigningAlgorithm::RsassaPkcs1V15Sha384, "-sha384".to_owned()),
        (KeySpec::EccNistP256, SigningAlgorithm::EcdsaSha256, "-sha256".to_owned()),
        (KeySpec::EccNistP521, SigningAlgorithm::EcdsaSha512, "-sha512".to_owned()),
        (KeySpec::EccSecgP256k1, SigningAlgorithm::EcdsaSha256, "-sha256".to_owned()),
    ] {
        let key = make(&f.keystore, spec, SignVerify);
        let signature = f.keystore.sign(&key, algorithm, Raw, b"message").unwrap().signature;
        let public = f.keystore.get_public_key(&key).unwrap().der;
        let openssl = OpenSsl::new();
        openssl.put("message", b"message").put("signature", &signature).put("public", &public);
        openssl.run(&format!(
            "dgst {options} -keyform DER -verify public -signature signature message"
        ));
        openssl.put("message", b"another");
        assert!(
            !openssl.agrees(&format!(
                "dgst {options} -keyform DER -verify public -signature signature message"
            )),
            "{algorithm}"
        );
    }
}

#[test]
fn openssl_encrypts_what_we_decrypt() {
    let f = Fixture::new();
    let key = make(&f.keystore, KeySpec::Rsa2048, EncryptDecrypt);
    let openssl = OpenSsl::new();
    openssl.put("public", &f.keystore.get_public_key(&key).unwrap().der).put("plain", b"secret");
    for (algorithm, hash) in [
        (EncryptionAlgorithm::RsaesOaepSha1, "sha1"),
        (EncryptionAlgorithm::RsaesOaepSha256, "sha256"),
    ] {
        openssl.run(&format!(
            "pkeyutl -encrypt -pubin -keyform DER -inkey public -in plain -out sealed -pkeyopt \
             rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:{hash} -pkeyopt rsa_mgf1_md:{hash}"
        ));
        let none = EncryptionContext::new();
        let sealed = openssl.take("sealed");
        let opened = f.keystore.decrypt_with(Some(&key), algorithm, &sealed, &none).unwrap();
        assert_eq!(opened.plaintext.expose(), b"secret");
    }
}

#[test]
fn rsa_encryption_has_the_limits_and_the_words_of_aws() {
    let f = Fixture::new();
    let (k, none) = (&f.keystore, EncryptionContext::new());
    let key = make(k, KeySpec::Rsa2048, EncryptDecrypt);
    let algorithm = EncryptionAlgorithm::RsaesOaepSha256;
    let sealed = k.encrypt_with(&key, algorithm, &[1; 190], &none).unwrap();
    assert_eq!(sealed.ciphertext.len(), 256);
    let opened = f.reopen().decrypt_with(Some(&key), algorithm, &sealed.ciphertext, &none);
    assert_eq!(opened.unwrap().plaintext.expose(), [1; 190]);

    let (usage, validation) = ("InvalidKeyUsageException", "ValidationException");
    for (result, name, words) in [
        (
            said(k.encrypt_with(&key, algorithm, &[1; 191], &none)),
            validation,
            "Algorithm RSAES_OAEP_SHA_256 and key spec RSA_2048 cannot encrypt data larger than \
             190 bytes.",
        ),
        (
            said(k.encrypt(&key, b"x", &none)),
            usage,
            "Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_2048.",
        ),
        (
            said(k.decrypt_with(
                Some(&key),
                EncryptionAlgorithm::SymmetricDefault,
                &sealed.ciphertext,
                &none,
            )),
            usage,
            "Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_2048.",
        ),
        (
            said(k.encrypt_with(&f.key().into(), algorithm, b"x", &none)),
            usage,
            "Algorithm RSAES_OAEP_SHA_256 is incompatible with key spec SYMMETRIC_DEFAULT.",
        ),
        (
            said(k.generate_data_key(&key, &none)),
            usage,
            "You cannot generate a data key with an asymmetric CMK",
        ),
        (
            said(k.decrypt_with(None, algorithm, &sealed.ciphertext, &none)),
            validation,
            "KeyId is required for the algorithm RSAES_OAEP_SHA_256.",
        ),
        (
            said(k.encrypt_with(&key, algorithm, b"x", &EncryptionContext::new().with("a", "b"))),
            validation,
            "An encryption context is not valid for algorithm RSAES_OAEP_SHA_256.",
        ),
    ] {
        assert_eq!(result, (name, words.to_owned()));
    }
    let mut changed = sealed.ciphertext;
    changed[9] ^= 1;
    let refused = k.decrypt_with(Some(&key), algorithm, &changed, &none);
    assert_eq!(said(refused).0, "InvalidCiphertextException");
}

#[test]
fn ciphertexts_move_between_symmetric_and_rsa_keys() {
    let f = Fixture::new();
    let (k, none) = (&f.keystore, EncryptionContext::new());
    let (symmetric, rsa) = (KeyRef::from(f.key()), make(k, KeySpec::Rsa2048, EncryptDecrypt));
    let (default, oaep) =
        (EncryptionAlgorithm::SymmetricDefault, EncryptionAlgorithm::RsaesOaepSha1);
    let context = EncryptionContext::new().with("a", "b");
    let first = k.encrypt(&symmetric, b"moves", &context).unwrap();
    let source = ReEncryptSource {
        key: None,
        algorithm: default,
        ciphertext: first.as_bytes(),
        context: &context,
    };
    let destination = ReEncryptDestination { key: &rsa, algorithm: oaep, context: &none };
    let second = k.re_encrypt_with(source, destination).unwrap();
    assert_eq!(KeyRef::from(second.source), symmetric);
    let source = ReEncryptSource {
        key: Some(&rsa),
        algorithm: oaep,
        ciphertext: &second.made.ciphertext,
        context: &none,
    };
    let destination =
        ReEncryptDestination { key: &symmetric, algorithm: default, context: &context };
    let third = k.re_encrypt_with(source, destination).unwrap();
    let opened = k.decrypt_with(None, default, &third.made.ciphertext, &context).unwrap();
    assert_eq!(opened.plaintext.expose(), b"moves");
}

#[test]
fn two_keys_agree_and_openssl_with_them() {
    let f = Fixture::new();
    for (spec, curve) in [
        (KeySpec::EccNistP256, "P-256"),
        (KeySpec::EccNistP384, "P-384"),
        (KeySpec::EccNistP521, "P-521"),
    ] {
        let key = make(&f.keystore, spec, KeyAgreement);
        let openssl = OpenSsl::new();
        openssl
            .run(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve} -out own.pem"))
            .run("pkey -in own.pem -pubout -outform DER -out own.der")
            .put("peer.der", &f.keystore.get_public_key(&key).unwrap().der)
            .run("pkeyutl -derive -inkey own.pem -peerform DER -peerkey peer.der -out secret");
        let shared = f.keystore.derive_shared_secret(&key, &openssl.take("own.der")).unwrap();
        assert_eq!(shared.secret.expose(), openssl.take("secret"), "{spec}");
        assert_eq!(said(f.keystore.derive_shared_secret(&key, &[0; 91])).0, "ValidationException");
    }
}

#[test]
fn macs_are_whole_and_belong_to_their_algorithm() {
    let f = Fixture::new();
    let k = &f.keystore;
    for (spec, algorithm, len) in [
        (KeySpec::Hmac224, MacAlgorithm::HmacSha224, 28),
        (KeySpec::Hmac256, MacAlgorithm::HmacSha256, 32),
        (KeySpec::Hmac384, MacAlgorithm::HmacSha384, 48),
        (KeySpec::Hmac512, MacAlgorithm::HmacSha512, 64),
    ] {
        let key = make(k, spec, GenerateVerifyMac);
        let made = k.generate_mac(&key, algorithm, b"message").unwrap();
        assert_eq!(made.mac.len(), len);
        assert_eq!(
            f.reopen().verify_mac(&key, algorithm, b"message", &made.mac).unwrap(),
            made.key
        );
        for wrong in [&made.mac[1..], &made.mac[..len - 1], &[]] {
            let refused = k.verify_mac(&key, algorithm, b"message", wrong);
            assert_eq!(said(refused).0, "KMSInvalidMacException");
        }
        let other = MacAlgorithm::ALL.iter().copied().find(|other| *other != algorithm).unwrap();
        let words = format!("Algorithm {other} is incompatible with key spec {spec}.");
        assert_eq!(
            said(k.generate_mac(&key, other, b"message")),
            ("InvalidKeyUsageException", words)
        );
    }
}

#[test]
fn a_key_does_only_what_its_usage_says() {
    let f = Fixture::new();
    let (k, none) = (&f.keystore, EncryptionContext::new());
    let ecdsa = SigningAlgorithm::EcdsaSha256;
    let sign = make(k, KeySpec::EccNistP256, SignVerify);
    let agree = make(k, KeySpec::EccNistP256, KeyAgreement);
    let mac = make(k, KeySpec::Hmac256, GenerateVerifyMac);
    let symmetric = KeyRef::from(f.key());
    let peer = k.get_public_key(&agree).unwrap().der;
    for (result, key, usage, operation) in [
        (said(k.sign(&agree, ecdsa, Raw, b"m")), &agree, "KEY_AGREEMENT", "Sign"),
        (said(k.derive_shared_secret(&sign, &peer)), &sign, "SIGN_VERIFY", "DeriveSharedSecret"),
        (said(k.encrypt(&mac, b"m", &none)), &mac, "GENERATE_VERIFY_MAC", "Encrypt"),
        (
            said(k.generate_mac(&symmetric, MacAlgorithm::HmacSha256, b"m")),
            &symmetric,
            "ENCRYPT_DECRYPT",
            "GenerateMac",
        ),
        (said(k.generate_data_key(&sign, &none)), &sign, "SIGN_VERIFY", "GenerateDataKey"),
    ] {
        let arn = arn(k, key);
        let words = format!("{arn} key usage is {usage} which is not valid for {operation}.");
        assert_eq!(result, ("InvalidKeyUsageException", words));
    }
    for key in [&mac, &symmetric] {
        assert_eq!(said(k.get_public_key(key)).0, "UnsupportedOperationException");
    }
    let (name, words) = said(k.sign(&sign, SigningAlgorithm::EcdsaSha384, Raw, b"m"));
    assert_eq!(name, "InvalidKeyUsageException");
    assert_eq!(words, "Algorithm ECDSA_SHA_384 is incompatible with key spec ECC_NIST_P256.");
    assert_eq!(said(k.sign(&sign, ecdsa, ExternalMu, &[0; 64])).0, "ValidationException");
    assert_eq!(said(k.sign(&sign, ecdsa, Raw, &[0; 4097])).0, "ValidationException");
    let rotated = k.rotate_key_on_demand(&sign, day(0));
    assert_eq!(said(rotated).0, "UnsupportedOperationException");
    assert_eq!(said(k.enable_key_rotation(&mac, None, day(0))).0, "UnsupportedOperationException");
}

#[test]
fn states_hold_for_every_kind_of_key() {
    let f = Fixture::new();
    let k = &f.keystore;
    let sign = make(k, KeySpec::EccNistEdwards25519, SignVerify);
    let mac = make(k, KeySpec::Hmac256, GenerateVerifyMac);
    for key in [&sign, &mac] {
        k.disable_key(key).unwrap();
    }
    let algorithm = SigningAlgorithm::Ed25519Sha512;
    assert_eq!(said(k.sign(&sign, algorithm, Raw, b"m")).0, "DisabledException");
    assert_eq!(said(k.get_public_key(&sign)).0, "DisabledException");
    let refused = k.generate_mac(&mac, MacAlgorithm::HmacSha256, b"m");
    assert_eq!(said(refused).0, "DisabledException");
}

#[test]
fn a_dry_run_says_what_would_be_and_does_nothing() {
    let f = Fixture::new();
    let sign = make(&f.keystore, KeySpec::EccNistP256, SignVerify);
    let dry = f.keystore.acting_for(Caller { dry_run: true, ..Caller::owner() });
    let would = dry.sign(&sign, SigningAlgorithm::EcdsaSha256, Raw, b"m");
    assert_eq!(said(would).0, "DryRunOperationException");
    let not = dry.sign(&sign, SigningAlgorithm::EcdsaSha512, Raw, b"m");
    assert_eq!(said(not).0, "InvalidKeyUsageException");
    let keys = f.keystore.list_keys().unwrap().len();
    let made = dry.create_key(CreateKey::default(), day(0));
    assert_eq!(said(made).0, "DryRunOperationException");
    assert_eq!(f.keystore.list_keys().unwrap().len(), keys);
}

/// Openssl reads both halves of every pair, and the halves belong together.
#[test]
fn data_key_pairs_are_wrapped_and_known_to_openssl() {
    let f = Fixture::new();
    let (key, context) = (KeyRef::from(f.key()), EncryptionContext::new().with("a", "b"));
    for spec in [
        KeySpec::Rsa2048,
        KeySpec::EccNistP256,
        KeySpec::EccNistP384,
        KeySpec::EccNistP521,
        KeySpec::EccSecgP256k1,
        KeySpec::EccNistEdwards25519,
    ] {
        let pair = f.keystore.generate_data_key_pair(&key, spec, &context).unwrap();
        let opened = f.keystore.decrypt(&pair.private_ciphertext, &context, None).unwrap();
        assert_eq!(opened.plaintext.expose(), pair.private.expose());
        let openssl = OpenSsl::new();
        openssl
            .put("private", pair.private.expose())
            .run("pkey -inform DER -in private -pubout -outform DER -out public");
        assert_eq!(openssl.take("public"), pair.public, "{spec}");
    }
    let (sealed, public) = f
        .keystore
        .generate_data_key_pair_without_plaintext(&key, KeySpec::EccNistP256, &context)
        .unwrap();
    assert!(!public.is_empty());
    f.keystore.decrypt(&sealed, &context, None).unwrap();
    for spec in [KeySpec::MlDsa44, KeySpec::Hmac256, KeySpec::SymmetricDefault] {
        let refused = f.keystore.generate_data_key_pair(&key, spec, &context);
        assert_eq!(said(refused).0, "ValidationException");
    }
}

#[test]
fn random_bytes_have_the_asked_length_and_differ() {
    let f = Fixture::new();
    for len in [1, 32, 1024] {
        assert_eq!(f.keystore.generate_random(len).unwrap().expose().len(), len);
    }
    let draw = || f.keystore.generate_random(32).unwrap().expose().to_vec();
    assert_ne!(draw(), draw());
    for len in [0, 1025] {
        assert_eq!(said(f.keystore.generate_random(len)).0, "ValidationException");
    }
}
