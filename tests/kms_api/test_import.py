"""Imported key material: wrapped, used, expired, deleted, imported again, rotated."""

import datetime
import os
import time
import unittest

from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from common import KmsTest, arn

WRAPPINGS = ("RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_1",
             "RSA_AES_KEY_WRAP_SHA_256")


def wrapped(parameters, algorithm, material):
    """The material as ImportKeyMaterial takes it."""
    public = serialization.load_der_public_key(parameters["PublicKey"])
    kind = hashes.SHA1 if algorithm.endswith("SHA_1") else hashes.SHA256
    oaep = padding.OAEP(padding.MGF1(kind()), kind(), None)
    if algorithm.startswith("RSAES"):
        return public.encrypt(material, oaep)
    wrapping = os.urandom(32)
    return public.encrypt(wrapping, oaep) + keywrap.aes_key_wrap_with_padding(wrapping, material)


def import_material(kms, key, material, algorithm="RSAES_OAEP_SHA_256", spec="RSA_2048", **request):
    parameters = kms.get_parameters_for_import(KeyId=key, WrappingAlgorithm=algorithm,
                                               WrappingKeySpec=spec)
    request.setdefault("ExpirationModel", "KEY_MATERIAL_DOES_NOT_EXPIRE")
    return kms.import_key_material(
        KeyId=key, ImportToken=parameters["ImportToken"],
        EncryptedKeyMaterial=wrapped(parameters, algorithm, material), **request)


class Import(KmsTest):
    def external(self, **request):
        made = self.kms.create_key(Origin="EXTERNAL", **request)["KeyMetadata"]
        self.assertEqual((made["KeyState"], made["Origin"]), ("PendingImport", "EXTERNAL"))
        return made["KeyId"]

    def test_all_wrappings_of_aws_bring_material_in(self):
        for algorithm in WRAPPINGS:
            for spec in ("RSA_2048", "RSA_3072", "RSA_4096"):
                key = self.external()
                done = import_material(self.kms, key, os.urandom(32), algorithm, spec)
                self.assertEqual(done["KeyId"], arn(key))
                self.assertRegex(done["KeyMaterialId"], "^[a-f0-9]{64}$")
                metadata = self.kms.describe_key(KeyId=key)["KeyMetadata"]
                self.assertEqual((metadata["KeyState"], metadata["ExpirationModel"]),
                                 ("Enabled", "KEY_MATERIAL_DOES_NOT_EXPIRE"))
                blob = self.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
                self.assertEqual(self.kms.decrypt(CiphertextBlob=blob)["Plaintext"], b"x")

    def test_parameters_are_valid_for_a_day(self):
        key = self.external()
        parameters = self.kms.get_parameters_for_import(
            KeyId=key, WrappingAlgorithm="RSAES_OAEP_SHA_256", WrappingKeySpec="RSA_2048")
        self.assertEqual(parameters["KeyId"], arn(key))
        left = parameters["ParametersValidTo"] - datetime.datetime.now(datetime.timezone.utc)
        self.assertTrue(23 * 3600 < left.total_seconds() <= 24 * 3600 + 1)

    def test_material_that_is_deleted_makes_the_key_wait_until_the_same_bytes_come_back(self):
        key, material = self.external(), os.urandom(32)
        import_material(self.kms, key, material)
        blob = self.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        self.kms.delete_imported_key_material(KeyId=key)
        self.assertEqual(self.kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"], "PendingImport")
        self.fails("KMSInvalidStateException", self.kms.decrypt, f"{arn(key)} is pending import.",
                   CiphertextBlob=blob)
        parameters = self.kms.get_parameters_for_import(
            KeyId=key, WrappingAlgorithm="RSAES_OAEP_SHA_256", WrappingKeySpec="RSA_2048")
        self.fails("IncorrectKeyMaterialException", self.kms.import_key_material, KeyId=key,
                   ImportToken=parameters["ImportToken"],
                   EncryptedKeyMaterial=wrapped(parameters, "RSAES_OAEP_SHA_256", os.urandom(32)),
                   ExpirationModel="KEY_MATERIAL_DOES_NOT_EXPIRE")
        import_material(self.kms, key, material)
        self.assertEqual(self.kms.decrypt(CiphertextBlob=blob)["Plaintext"], b"x")

    def test_material_expires(self):
        key = self.external()
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)
        import_material(self.kms, key, os.urandom(32), ExpirationModel="KEY_MATERIAL_EXPIRES",
                        ValidTo=soon)
        metadata = self.kms.describe_key(KeyId=key)["KeyMetadata"]
        self.assertEqual(metadata["ExpirationModel"], "KEY_MATERIAL_EXPIRES")
        self.assertAlmostEqual(metadata["ValidTo"].timestamp(), soon.timestamp(), delta=1)
        self.kms.encrypt(KeyId=key, Plaintext=b"x")
        time.sleep(4.5)
        self.fails("KMSInvalidStateException", self.kms.encrypt, f"{arn(key)} is pending import.",
                   KeyId=key, Plaintext=b"x")
        self.assertEqual(self.kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"], "PendingImport")

    def test_an_end_must_be_named_for_material_that_expires_and_lie_ahead(self):
        key = self.external()
        with self.assertRaises(self.kms.exceptions.ClientError):
            import_material(self.kms, key, os.urandom(32), ExpirationModel="KEY_MATERIAL_EXPIRES")
        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
        with self.assertRaises(self.kms.exceptions.ClientError) as caught:
            import_material(self.kms, key, os.urandom(32), ExpirationModel="KEY_MATERIAL_EXPIRES",
                            ValidTo=past)
        self.assertEqual(caught.exception.response["Error"]["Code"], "ValidationException")

    def test_tokens_and_material_that_do_not_belong_together_are_refused(self):
        first, second = self.external(), self.external()
        get = lambda key: self.kms.get_parameters_for_import(
            KeyId=key, WrappingAlgorithm="RSAES_OAEP_SHA_256", WrappingKeySpec="RSA_2048")
        parameters = get(first)
        material = wrapped(parameters, "RSAES_OAEP_SHA_256", os.urandom(32))
        model = {"ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}
        for token, key in ((parameters["ImportToken"], second), (b"nonsense", first)):
            self.fails("InvalidImportTokenException", self.kms.import_key_material, KeyId=key,
                       ImportToken=token, EncryptedKeyMaterial=material, **model)
        self.fails("InvalidCiphertextException", self.kms.import_key_material, KeyId=first,
                   ImportToken=parameters["ImportToken"], EncryptedKeyMaterial=b"x" * 256, **model)
        parameters = get(first)
        short = wrapped(parameters, "RSAES_OAEP_SHA_256", os.urandom(16))
        self.fails("IncorrectKeyMaterialException", self.kms.import_key_material, KeyId=first,
                   ImportToken=parameters["ImportToken"], EncryptedKeyMaterial=short, **model)

    def test_keys_of_this_keystore_take_no_material(self):
        key = self.key()
        message = f"{arn(key)} origin is AWS_KMS which is not valid for this operation."
        self.fails("UnsupportedOperationException", self.kms.get_parameters_for_import, message,
                   KeyId=key, WrappingAlgorithm="RSAES_OAEP_SHA_256", WrappingKeySpec="RSA_2048")
        self.fails("UnsupportedOperationException", self.kms.delete_imported_key_material, message,
                   KeyId=key)

    def test_asymmetric_keys_are_imported_and_sign_with_the_imported_half(self):
        private = ec.generate_private_key(ec.SECP256R1())
        key = self.external(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        encoded = private.private_bytes(serialization.Encoding.DER,
                                        serialization.PrivateFormat.PKCS8,
                                        serialization.NoEncryption())
        import_material(self.kms, key, encoded, "RSA_AES_KEY_WRAP_SHA_256")
        signature = self.kms.sign(KeyId=key, Message=b"m", SigningAlgorithm="ECDSA_SHA_256")
        private.public_key().verify(signature["Signature"], b"m", ec.ECDSA(hashes.SHA256()))
        private = rsa.generate_private_key(65537, 2048)
        key = self.external(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
        encoded = private.private_bytes(serialization.Encoding.DER,
                                        serialization.PrivateFormat.PKCS8,
                                        serialization.NoEncryption())
        import_material(self.kms, key, encoded, "RSA_AES_KEY_WRAP_SHA_1")
        signature = self.kms.sign(KeyId=key, Message=b"m",
                                  SigningAlgorithm="RSASSA_PKCS1_V1_5_SHA_256")
        private.public_key().verify(signature["Signature"], b"m", padding.PKCS1v15(), hashes.SHA256())

    def test_imported_material_rotates_on_demand(self):
        key, first, second = self.external(), os.urandom(32), os.urandom(32)
        import_material(self.kms, key, first)
        blob = self.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        before = self.kms.decrypt(CiphertextBlob=blob)["KeyMaterialId"]
        done = import_material(self.kms, key, second, ImportType="NEW_KEY_MATERIAL",
                               KeyMaterialDescription="second")
        self.assertNotEqual(done["KeyMaterialId"], before)
        listed = self.kms.list_key_rotations(KeyId=key, IncludeKeyMaterial="ALL_KEY_MATERIAL")
        states = {entry["KeyMaterialId"]: entry["KeyMaterialState"] for entry in listed["Rotations"]}
        self.assertEqual(states, {before: "CURRENT", done["KeyMaterialId"]: "PENDING_ROTATION"})
        self.kms.rotate_key_on_demand(KeyId=key)
        self.assertEqual(self.kms.decrypt(CiphertextBlob=blob)["KeyMaterialId"], before)
        after = self.kms.generate_data_key(KeyId=key, KeySpec="AES_256")["KeyMaterialId"]
        self.assertEqual(after, done["KeyMaterialId"])


if __name__ == "__main__":
    unittest.main()
