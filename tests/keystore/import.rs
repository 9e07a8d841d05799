//! Imported key material: tokens, kinds, ends, and what may come back.

use std::time::{Duration, SystemTime};

use kmsfs::crypto::asym::{KeyKind, PublicKey};
use kmsfs::crypto::digest::HashKind;
use kmsfs::crypto::keywrap;
use kmsfs::keystore::{
    Caller, ClockTrust, CreateKey, EncryptionAlgorithm, EncryptionContext, ExpirationModel,
    ImportParameters, ImportRequest, ImportState, ImportType, ImportedMaterial, KeyRef, KeySpec,
    KeyState, KeyUsage, Keystore, KeystoreError, MacAlgorithm, MaterialState, MessageType, Origin,
    SigningAlgorithm, WrappingAlgorithm, WrappingKeySpec,
};

use crate::fixture::{Fixture, day};
use crate::openssl::OpenSsl;

use ExpirationModel::{KeyMaterialDoesNotExpire, KeyMaterialExpires};

pub(crate) fn external(keystore: &Keystore, spec: KeySpec, usage: KeyUsage) -> KeyRef {
    let request = CreateKey {
        spec: Some(spec),
        usage: Some(usage),
        origin: Some(Origin::External),
        ..CreateKey::default()
    };
    let made = keystore.create_key(request, day(0)).unwrap();
    assert_eq!(made.key_state, KeyState::PendingImport);
    assert_eq!(made.current_key_material_id, None);
    made.key_id.into()
}

pub(crate) fn symmetric(keystore: &Keystore) -> KeyRef {
    external(keystore, KeySpec::SymmetricDefault, KeyUsage::EncryptDecrypt)
}

pub(crate) fn parameters(keystore: &Keystore, key: &KeyRef, now: SystemTime) -> ImportParameters {
    let algorithm = WrappingAlgorithm::RsaAesKeyWrapSha256;
    keystore.get_parameters_for_import(key, algorithm, WrappingKeySpec::Rsa2048, now).unwrap()
}

/// RSA_AES_KEY_WRAP_SHA_256.
pub(crate) fn wrap(parameters: &ImportParameters, material: &[u8]) -> Vec<u8> {
    let public = PublicKey::from_spki(KeyKind::Rsa2048, &parameters.public_key).unwrap();
    let aes = [0x5a; 32];
    let mut wrapped = public.encrypt(HashKind::Sha256, &aes).unwrap();
    wrapped.extend(keywrap::wrap(&aes, material).unwrap());
    wrapped
}

pub(crate) fn request<'a>(token: &'a [u8], encrypted: &'a [u8]) -> ImportRequest<'a> {
    ImportRequest {
        token,
        encrypted,
        model: KeyMaterialDoesNotExpire,
        valid_to: None,
        import_type: None,
        description: None,
        material: None,
    }
}

/// Imports `material` with a request that `change` made out of the plain one.
pub(crate) fn import_as(
    keystore: &Keystore,
    key: &KeyRef,
    material: &[u8],
    change: impl FnOnce(&mut ImportRequest<'_>),
) -> Result<ImportedMaterial, KeystoreError> {
    let parameters = parameters(keystore, key, day(0));
    let encrypted = wrap(&parameters, material);
    let mut request = request(&parameters.token, &encrypted);
    change(&mut request);
    keystore.import_key_material(key, &request, day(0))
}

fn import(keystore: &Keystore, key: &KeyRef, material: &[u8]) -> ImportedMaterial {
    import_as(keystore, key, material, |_| {}).unwrap()
}

fn said<T>(result: Result<T, KeystoreError>) -> (&'static str, String) {
    let error = result.map(drop).unwrap_err();
    (error.aws_name(), error.to_string())
}

fn state(keystore: &Keystore, key: &KeyRef) -> KeyState {
    keystore.describe_key(key).unwrap().key_state
}

#[test]
fn material_that_openssl_wraps_works_and_survives_a_restart() {
    for (algorithm, hash, direct) in [
        (WrappingAlgorithm::RsaesOaepSha1, "sha1", true),
        (WrappingAlgorithm::RsaesOaepSha256, "sha256", true),
        (WrappingAlgorithm::RsaAesKeyWrapSha1, "sha1", false),
        (WrappingAlgorithm::RsaAesKeyWrapSha256, "sha256", false),
    ] {
        let f = Fixture::new();
        let key = symmetric(&f.keystore);
        let parameters = f
            .keystore
            .get_parameters_for_import(&key, algorithm, WrappingKeySpec::Rsa3072, day(0))
            .unwrap();
        let (aes, material) = ([0x11; 32], [0x22; 32]);
        let openssl = OpenSsl::new();
        openssl
            .put("public", &parameters.public_key)
            .put("plain", if direct { &material } else { &aes })
            .put("material", &material)
            .run(&format!(
                "pkeyutl -encrypt -pubin -keyform DER -inkey public -in plain -out rsa -pkeyopt \
                 rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:{hash} -pkeyopt rsa_mgf1_md:{hash}"
            ))
            .run(&format!(
                "enc -id-aes256-wrap-pad -iv A65959A6 -K {} -in material -out aes",
                "11".repeat(32)
            ));
        let mut encrypted = openssl.take("rsa");
        if !direct {
            encrypted.extend(openssl.take("aes"));
        }
        // The import key survives a restart.
        let again = f.reopen();
        again.import_key_material(&key, &request(&parameters.token, &encrypted), day(0)).unwrap();
        assert_eq!(state(&again, &key), KeyState::Enabled);
        let context = EncryptionContext::new();
        let blob = again.encrypt(&key, b"x", &context).unwrap();
        assert_eq!(f.reopen().decrypt(&blob, &context, None).unwrap().plaintext.expose(), b"x");
        assert!(f.keystore.verify().unwrap().is_clean(), "{algorithm}");
    }
}

/// Private keys and HMAC keys whose results openssl confirms.
#[test]
fn imported_private_keys_and_hmac_keys_are_those_of_openssl() {
    let f = Fixture::new();
    let k = &f.keystore;
    for (spec, algorithm, make) in [
        (
            KeySpec::Rsa3072,
            SigningAlgorithm::RsassaPkcs1V15Sha256,
            "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072",
        ),
        (
            KeySpec::EccNistP256,
            SigningAlgorithm::EcdsaSha256,
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
        ),
        (
            KeySpec::EccSecgP256k1,
            SigningAlgorithm::EcdsaSha256,
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1",
        ),
        (
            KeySpec::EccNistEdwards25519,
            SigningAlgorithm::Ed25519Sha512,
            "genpkey -algorithm ED25519",
        ),
    ] {
        let openssl = OpenSsl::new();
        openssl
            .run(&format!("{make} -out own.pem"))
            .run("pkcs8 -topk8 -nocrypt -in own.pem -outform DER -out own.der")
            .run("pkey -in own.pem -pubout -outform DER -out public.der");
        let key = external(k, spec, KeyUsage::SignVerify);
        import(k, &key, &openssl.take("own.der"));
        assert_eq!(k.get_public_key(&key).unwrap().der, openssl.take("public.der"), "{spec}");
        let signed = k.sign(&key, algorithm, MessageType::Raw, b"message").unwrap();
        let checked =
            k.verify_signature(&key, algorithm, MessageType::Raw, b"message", &signed.signature);
        checked.unwrap();
        // The same key in the same bytes may come back, another one of its kind may not.
        import(k, &key, &openssl.take("own.der"));
        openssl
            .run(&format!("{make} -out other.pem"))
            .run("pkcs8 -topk8 -nocrypt -in other.pem -outform DER -out other.der");
        let other = import_as(k, &key, &openssl.take("other.der"), |_| {});
        assert_eq!(said(other).0, "IncorrectKeyMaterialException");
    }
    let mac = external(k, KeySpec::Hmac384, KeyUsage::GenerateVerifyMac);
    import(k, &mac, &[0x33; 48]);
    let made = k.generate_mac(&mac, MacAlgorithm::HmacSha384, b"message").unwrap().mac;
    let openssl = OpenSsl::new();
    openssl.put("message", b"message").run(&format!(
        "dgst -sha384 -mac HMAC -macopt hexkey:{} -binary -out mac message",
        "33".repeat(48)
    ));
    assert_eq!(made, openssl.take("mac"));
}

#[test]
fn material_of_another_kind_is_refused() {
    let f = Fixture::new();
    let k = &f.keystore;
    for (spec, usage, material) in [
        (KeySpec::SymmetricDefault, KeyUsage::EncryptDecrypt, vec![1; 31]),
        (KeySpec::SymmetricDefault, KeyUsage::EncryptDecrypt, vec![1; 33]),
        (KeySpec::Hmac224, KeyUsage::GenerateVerifyMac, vec![1; 32]),
        (KeySpec::EccNistP256, KeyUsage::SignVerify, vec![1; 32]),
        (KeySpec::Rsa2048, KeyUsage::SignVerify, vec![0x30; 1200]),
    ] {
        let key = external(k, spec, usage);
        let refused = import_as(k, &key, &material, |_| {});
        assert_eq!(said(refused).0, "IncorrectKeyMaterialException", "{spec}");
        assert_eq!(state(k, &key), KeyState::PendingImport);
    }
}

#[test]
fn tokens_belong_to_their_key_and_are_over_after_a_day() {
    let f = Fixture::new();
    let k = &f.keystore;
    let (one, two) = (symmetric(k), symmetric(k));
    let parameters = parameters(k, &one, day(0));
    assert_eq!(parameters.valid_to, day(1).into());
    let encrypted = wrap(&parameters, &[1; 32]);
    let good = request(&parameters.token, &encrypted);
    assert_eq!(said(k.import_key_material(&two, &good, day(0))).0, "InvalidImportTokenException");
    let mut changed = parameters.token.clone();
    changed[30] ^= 1;
    for token in [changed.as_slice(), &[], &[0; 64]] {
        let refused = k.import_key_material(&one, &ImportRequest { token, ..good.clone() }, day(0));
        assert_eq!(said(refused).0, "InvalidImportTokenException");
    }
    let second = Duration::from_secs(1);
    let late = k.import_key_material(&one, &good, day(1));
    assert_eq!(said(late).0, "ExpiredImportTokenException");
    // Once more after its row was swept away: a token that is over is still told from none.
    k.expire_imported(day(1)).unwrap();
    let late = k.import_key_material(&one, &good, day(2));
    assert_eq!(said(late).0, "ExpiredImportTokenException");
    let swept = k.import_key_material(&one, &good, day(1) - second);
    assert_eq!(said(swept).0, "InvalidImportTokenException");
}

#[test]
fn a_ciphertext_that_does_not_open_is_invalid_and_nothing_more() {
    let f = Fixture::new();
    let k = &f.keystore;
    let key = symmetric(k);
    let parameters = parameters(k, &key, day(0));
    let good = wrap(&parameters, &[1; 32]);
    let mut rsa = good.clone();
    rsa[5] ^= 1;
    let mut aes = good.clone();
    *aes.last_mut().unwrap() ^= 1;
    for encrypted in [rsa.as_slice(), &aes, &good[..256], &good[..100], &[], &[7; 6144]] {
        let refused = k.import_key_material(&key, &request(&parameters.token, encrypted), day(0));
        let (name, words) = said(refused);
        assert_eq!(name, "InvalidCiphertextException");
        assert_eq!(words, KeystoreError::InvalidCiphertext.to_string());
    }
}

#[test]
fn only_keys_made_for_it_take_material_and_only_wrapped_as_it_fits() {
    let f = Fixture::new();
    let k = &f.keystore;
    let own = KeyRef::from(f.key());
    let arn = k.describe_key(&own).unwrap().arn;
    let (oaep, aes) = (WrappingAlgorithm::RsaesOaepSha256, WrappingAlgorithm::RsaAesKeyWrapSha256);
    let words = format!("{arn} origin is AWS_KMS which is not valid for this operation.");
    let refused = k.get_parameters_for_import(&own, aes, WrappingKeySpec::Rsa2048, day(0));
    assert_eq!(said(refused), ("UnsupportedOperationException", words.clone()));
    let refused = k.delete_imported_key_material(&own, None);
    assert_eq!(said(refused), ("UnsupportedOperationException", words));
    let rsa = external(k, KeySpec::Rsa2048, KeyUsage::SignVerify);
    let refused = k.get_parameters_for_import(&rsa, oaep, WrappingKeySpec::Rsa4096, day(0));
    assert_eq!(said(refused).0, "UnsupportedOperationException");
    let ec = external(k, KeySpec::EccNistP521, KeyUsage::SignVerify);
    let refused = k.get_parameters_for_import(&ec, oaep, WrappingKeySpec::Rsa2048, day(0));
    assert_eq!(said(refused).0, "UnsupportedOperationException");
    k.get_parameters_for_import(&ec, oaep, WrappingKeySpec::Rsa3072, day(0)).unwrap();
}

#[test]
fn a_key_that_waits_for_its_material_cannot_be_used() {
    let f = Fixture::new();
    let k = &f.keystore;
    let key = symmetric(k);
    let arn = k.describe_key(&key).unwrap().arn;
    let words = format!("{arn} is pending import.");
    let invalid = "KMSInvalidStateException";
    assert_eq!(said(k.encrypt(&key, b"x", &EncryptionContext::new())), (invalid, words));
    assert_eq!(said(k.enable_key(&key)).0, invalid);
    assert_eq!(said(k.disable_key(&key)).0, invalid);
    let rsa = external(k, KeySpec::Rsa2048, KeyUsage::EncryptDecrypt);
    assert_eq!(said(k.get_public_key(&rsa)).0, invalid);
    let sealed = k.decrypt_with(
        Some(&rsa),
        EncryptionAlgorithm::RsaesOaepSha256,
        &[1; 256],
        &EncryptionContext::new(),
    );
    assert_eq!(said(sealed).0, invalid);
    assert!(k.verify().unwrap().is_clean());
}

#[test]
fn deleted_material_comes_back_as_the_same_bytes_only() {
    let f = Fixture::new();
    let k = &f.keystore;
    let (key, context) = (symmetric(k), EncryptionContext::new());
    let first = import(k, &key, &[1; 32]);
    let blob = k.encrypt(&key, b"kept", &context).unwrap();
    assert_eq!(k.delete_imported_key_material(&key, None).unwrap(), first);
    assert_eq!(state(k, &key), KeyState::PendingImport);
    assert_eq!(
        k.list_key_rotations(&key).unwrap()[0].import_state,
        Some(ImportState::PendingImport)
    );
    assert_eq!(said(k.decrypt(&blob, &context, None)).0, "KMSInvalidStateException");
    let other = import_as(k, &key, &[2; 32], |_| {});
    assert_eq!(said(other).0, "IncorrectKeyMaterialException");
    let named = import_as(k, &key, &[1; 32], |request| {
        request.material = Some(kmsfs::id::MaterialId::from_bytes([9; 16]));
    });
    assert_eq!(said(named).0, "IncorrectKeyMaterialException");
    let again = import_as(k, &key, &[1; 32], |request| {
        (request.material, request.description) = (first.material, Some("from the safe".into()));
    });
    assert_eq!(again.unwrap(), first);
    assert_eq!(k.decrypt(&blob, &context, None).unwrap().plaintext.expose(), b"kept");
    let listed = &k.list_key_rotations(&key).unwrap()[0];
    assert_eq!(listed.key_material_description.as_deref(), Some("from the safe"));
    assert_eq!(listed.key_material_state, MaterialState::Current);
    // Deleted twice is deleted once; the description is kept for the next import.
    k.delete_imported_key_material(&key, None).unwrap();
    k.delete_imported_key_material(&key, first.material).unwrap();
    import(k, &key, &[1; 32]);
    let listed = &k.list_key_rotations(&key).unwrap()[0];
    assert_eq!(listed.key_material_description.as_deref(), Some("from the safe"));
}

#[test]
fn deleted_material_is_in_no_file() {
    let f = Fixture::new();
    let key = symmetric(&f.keystore);
    import(&f.keystore, &key, &[1; 32]);
    let rows = sealed_rows(&f);
    f.keystore.delete_imported_key_material(&key, None).unwrap();
    f.keystore.expire_imported(day(1)).unwrap();
    let now = sealed_rows(&f);
    assert_eq!(
        (rows.len(), now.len()),
        (2, 1),
        "the import key is gone, the row of the material stays"
    );
    for row in rows {
        for name in ["store.db", "store.db-wal"] {
            let raw = std::fs::read(f.dir.join(name)).unwrap_or_default();
            assert!(!raw.windows(row.len()).any(|window| window == row), "{name}");
        }
    }
}

fn sealed_rows(f: &Fixture) -> Vec<Vec<u8>> {
    let database = rusqlite::Connection::open(f.path()).unwrap();
    let query = "SELECT sealed FROM import_key UNION ALL SELECT sealed FROM key_material";
    let mut rows = database.prepare(query).unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn material_with_an_end_is_refused_from_that_moment_and_deleted_by_maintenance() {
    let f = Fixture::new();
    let key = symmetric(&f.keystore);
    let ends = |request: &mut ImportRequest<'_>| {
        (request.model, request.valid_to) = (KeyMaterialExpires, Some(day(10)));
    };
    import_as(&f.keystore, &key, &[1; 32], ends).unwrap();
    let shown = f.keystore.describe_key(&key).unwrap();
    assert_eq!(shown.expiration_model, Some(KeyMaterialExpires));
    assert_eq!(shown.valid_to, Some(day(10).into()));
    let context = EncryptionContext::new();
    let at = |time| f.keystore.acting_for(Caller { at: Some(time), ..Caller::owner() });
    let before = day(10) - Duration::from_secs(1);
    days_pass(&f.keystore, 10);
    let blob = at(before).encrypt(&key, b"x", &context).unwrap();
    assert!(f.keystore.expire_imported(before).unwrap().is_empty());
    // Nobody cleaned up yet.
    let late = at(day(10)).decrypt(&blob, &context, None);
    assert_eq!(said(late).0, "KMSInvalidStateException");
    let shown_late = at(day(10)).key_state(at(day(10)).resolve(&key).unwrap()).unwrap();
    assert_eq!(shown_late, KeyState::PendingImport);
    assert_eq!(f.keystore.expire_imported(day(10)).unwrap().len(), 1);
    assert_eq!(state(&f.keystore, &key), KeyState::PendingImport);
    // Back before its end by the clock: gone is gone.
    assert_eq!(said(at(before).decrypt(&blob, &context, None)).0, "KMSInvalidStateException");
    import(&f.keystore, &key, &[1; 32]);
    let shown = f.keystore.describe_key(&key).unwrap();
    assert_eq!((shown.expiration_model, shown.valid_to), (Some(KeyMaterialDoesNotExpire), None));
    assert_eq!(at(day(10)).decrypt(&blob, &context, None).unwrap().plaintext.expose(), b"x");
}

#[test]
fn an_end_lies_in_the_next_year_and_is_given_if_there_is_one() {
    let f = Fixture::new();
    let key = symmetric(&f.keystore);
    for (model, valid_to) in [
        (KeyMaterialExpires, None),
        (KeyMaterialExpires, Some(day(0))),
        (KeyMaterialExpires, Some(day(366))),
        (KeyMaterialDoesNotExpire, Some(day(1))),
    ] {
        let refused = import_as(&f.keystore, &key, &[1; 32], |request| {
            (request.model, request.valid_to) = (model, valid_to);
        });
        assert_eq!(said(refused).0, "ValidationException");
    }
}

#[test]
fn imported_keys_rotate_to_material_that_waits_and_need_all_of_it() {
    let f = Fixture::new();
    let k = &f.keystore;
    let (key, context) = (symmetric(k), EncryptionContext::new());
    let new = |request: &mut ImportRequest<'_>| {
        request.import_type = Some(ImportType::NewKeyMaterial);
    };
    let first = import_as(k, &key, &[1; 32], new).unwrap();
    let old = k.encrypt(&key, b"old", &context).unwrap();
    let arn = k.describe_key(&key).unwrap().arn;
    assert_eq!(
        said(k.rotate_key_on_demand(&key, day(1))),
        (
            "KMSInvalidStateException",
            format!("No available key material pending rotation for the key: {arn}.")
        )
    );
    assert_eq!(said(k.enable_key_rotation(&key, None, day(0))).0, "UnsupportedOperationException");
    assert_eq!(
        said(import_as(k, &key, &[1; 32], new)).0,
        "IncorrectKeyMaterialException",
        "it is there already"
    );
    let second = import_as(k, &key, &[2; 32], new).unwrap();
    let states = |k: &Keystore| -> Vec<_> {
        k.list_key_rotations(&key).unwrap().iter().map(|r| r.key_material_state).collect()
    };
    assert_eq!(states(k), [MaterialState::Current, MaterialState::PendingRotation]);
    assert_eq!(k.encrypt(&key, b"x", &context).unwrap().material_id(), first.material.unwrap());
    let third = import_as(k, &key, &[3; 32], new);
    assert_eq!(said(third).0, "IncorrectKeyMaterialException", "one waits already");
    assert_eq!(k.rotate_key_on_demand(&key, day(1)).unwrap(), second.material.unwrap());
    assert_eq!(states(k), [MaterialState::NonCurrent, MaterialState::Current]);
    let made = k.encrypt(&key, b"new", &context).unwrap();
    assert_eq!(made.material_id(), second.material.unwrap());
    assert_eq!(k.decrypt(&old, &context, None).unwrap().plaintext.expose(), b"old");
    // Without the older one the key waits for it, and for nothing else.
    k.delete_imported_key_material(&key, first.material).unwrap();
    assert_eq!(said(k.decrypt(&made, &context, None)).0, "KMSInvalidStateException");
    import(k, &key, &[1; 32]);
    assert_eq!(k.decrypt(&made, &context, None).unwrap().plaintext.expose(), b"new");
    // One that waits goes without a trace, and the key stays as it is.
    let third = import_as(k, &key, &[3; 32], new).unwrap();
    k.delete_imported_key_material(&key, third.material).unwrap();
    assert_eq!((state(k, &key), states(k).len()), (KeyState::Enabled, 2));
    assert!(k.verify().unwrap().is_clean());
}

/// A keystore that is looked after every day until this one.
fn days_pass(keystore: &Keystore, until: u64) {
    for today in 1..until {
        keystore.delete_expired(day(today), ClockTrust::Steps).unwrap();
    }
}

/// A clock that was wrong for a moment, at boot or by a lying server, destroyed material for good where
/// it held deletions.
#[test]
fn regression_a_clock_that_leaps_deletes_no_imported_material() {
    let f = Fixture::new();
    let k = &f.keystore;
    let key = symmetric(k);
    import_as(k, &key, &[1; 32], |request| {
        (request.model, request.valid_to) = (KeyMaterialExpires, Some(day(300)));
    })
    .unwrap();
    let id = k.resolve(&key).unwrap();
    let look = |today: u64| {
        let expired = k.expire_imported(day(today)).unwrap().len();
        let held = k.held_imports(day(today)).unwrap();
        k.delete_expired(day(today), ClockTrust::Steps).unwrap();
        (expired, held)
    };
    // Wrong twice, right again, and wrong again by less.
    for today in [400, 400, 1, 2, 350] {
        assert_eq!(look(today), (0, if today > 300 { vec![id] } else { Vec::new() }), "{today}");
    }
    let context = EncryptionContext::new();
    let right = k.acting_for(Caller { at: Some(day(2)), ..Caller::owner() });
    right.encrypt(&key, b"x", &context).unwrap();
    // It goes on from there.
    assert_eq!(look(351), (1, Vec::new()));
}

/// A daily timer is an hour late at times: the clock was never steady again.
#[test]
fn regression_imported_material_ends_although_looks_are_a_day_and_an_hour_apart() {
    let f = Fixture::new();
    let k = &f.keystore;
    let key = symmetric(k);
    import_as(k, &key, &[1; 32], |request| {
        (request.model, request.valid_to) = (KeyMaterialExpires, Some(day(3)));
    })
    .unwrap();
    let look = |number: u64| {
        let now = day(0) + Duration::from_secs(number * 25 * 3600);
        let expired = k.expire_imported(now).unwrap().len();
        k.delete_expired(now, ClockTrust::Steps).unwrap();
        expired
    };
    assert_eq!([1, 2, 3].map(look), [0, 0, 1]);
}

#[test]
fn a_confirmed_clock_deletes_imported_material_that_was_held() {
    let f = Fixture::new();
    let k = &f.keystore;
    let key = symmetric(k);
    import_as(k, &key, &[1; 32], |request| {
        (request.model, request.valid_to) = (KeyMaterialExpires, Some(day(30)));
    })
    .unwrap();
    assert!(k.expire_imported(day(40)).unwrap().is_empty());
    k.delete_expired(day(40), ClockTrust::Confirmed).unwrap();
    assert_eq!(k.expire_imported(day(40)).unwrap().len(), 1);
}

#[test]
fn material_that_waits_has_an_end_too() {
    let f = Fixture::new();
    let k = &f.keystore;
    let key = symmetric(k);
    import(k, &key, &[1; 32]);
    import_as(k, &key, &[2; 32], |request| {
        request.import_type = Some(ImportType::NewKeyMaterial);
        (request.model, request.valid_to) = (KeyMaterialExpires, Some(day(3)));
    })
    .unwrap();
    assert_eq!(k.describe_key(&key).unwrap().valid_to, None);
    assert_eq!(said(k.rotate_key_on_demand(&key, day(3))).0, "KMSInvalidStateException");
    days_pass(k, 3);
    assert_eq!(k.expire_imported(day(3)).unwrap().len(), 1);
    assert_eq!((state(k, &key), k.list_key_rotations(&key).unwrap().len()), (KeyState::Enabled, 1));
}

#[test]
fn a_cancelled_deletion_leaves_a_key_without_material_waiting_for_it() {
    let f = Fixture::new();
    let k = &f.keystore;
    let key = symmetric(k);
    import(k, &key, &[1; 32]);
    let id = k.resolve(&key).unwrap();
    k.schedule_key_deletion(id, None, day(0)).unwrap();
    k.delete_imported_key_material(&key, None).unwrap();
    assert_eq!(state(k, &key), KeyState::PendingDeletion);
    assert_eq!(said(import_as_late(k, &key)).0, "KMSInvalidStateException");
    k.cancel_key_deletion(&key).unwrap();
    assert_eq!(state(k, &key), KeyState::PendingImport);
    import(k, &key, &[1; 32]);
    assert_eq!(state(k, &key), KeyState::Enabled);
}

fn import_as_late(k: &Keystore, key: &KeyRef) -> Result<ImportParameters, KeystoreError> {
    let algorithm = WrappingAlgorithm::RsaAesKeyWrapSha256;
    k.get_parameters_for_import(key, algorithm, WrappingKeySpec::Rsa2048, day(0))
}
