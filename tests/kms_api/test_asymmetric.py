"""Signatures, MACs, public keys, shared secrets: checked with another library."""

import hashlib
import hmac
import unittest

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from common import KmsTest, arn

HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
CURVES = {"ECC_NIST_P256": "256", "ECC_NIST_P384": "384", "ECC_NIST_P521": "512",
          "ECC_SECG_P256K1": "256"}
MESSAGE = b"the message"


class Signatures(KmsTest):
    def public(self, key):
        return serialization.load_der_public_key(self.kms.get_public_key(KeyId=key)["PublicKey"])

    def sign(self, key, algorithm, message=MESSAGE, **request):
        made = self.kms.sign(KeyId=key, Message=message, SigningAlgorithm=algorithm, **request)
        self.assertEqual((made["KeyId"], made["SigningAlgorithm"]), (arn(key), algorithm))
        return made["Signature"]

    def verifies(self, key, algorithm, signature, message=MESSAGE, **request):
        found = self.kms.verify(KeyId=key, Message=message, Signature=signature,
                                SigningAlgorithm=algorithm, **request)
        self.assertTrue(found["SignatureValid"])

    def test_rsa_signatures_verify_elsewhere_with_the_salt_length_of_aws(self):
        for spec in ("RSA_2048", "RSA_3072", "RSA_4096"):
            key = self.key(KeySpec=spec, KeyUsage="SIGN_VERIFY")
            public = self.public(key)
            for size, kind in HASHES.items():
                signature = self.sign(key, f"RSASSA_PSS_SHA_{size}")
                exact = padding.PSS(padding.MGF1(kind()), salt_length=kind.digest_size)
                public.verify(signature, MESSAGE, exact, kind())
                self.verifies(key, f"RSASSA_PSS_SHA_{size}", signature)
                signature = self.sign(key, f"RSASSA_PKCS1_V1_5_SHA_{size}")
                public.verify(signature, MESSAGE, padding.PKCS1v15(), kind())
                self.verifies(key, f"RSASSA_PKCS1_V1_5_SHA_{size}", signature)

    def test_ecdsa_signatures_verify_elsewhere(self):
        for spec, size in CURVES.items():
            key = self.key(KeySpec=spec, KeyUsage="SIGN_VERIFY")
            signature = self.sign(key, f"ECDSA_SHA_{size}")
            self.public(key).verify(signature, MESSAGE, ec.ECDSA(HASHES[size]()))
            self.verifies(key, f"ECDSA_SHA_{size}", signature)

    def test_ed25519_signatures_verify_elsewhere(self):
        key = self.key(KeySpec="ECC_NIST_EDWARDS25519", KeyUsage="SIGN_VERIFY")
        signature = self.sign(key, "ED25519_SHA_512")
        self.public(key).verify(signature, MESSAGE)
        self.verifies(key, "ED25519_SHA_512", signature)
        digest = hashlib.sha512(MESSAGE).digest()
        signature = self.sign(key, "ED25519_PH_SHA_512", digest, MessageType="DIGEST")
        self.verifies(key, "ED25519_PH_SHA_512", signature, digest, MessageType="DIGEST")

    def test_ml_dsa_signatures_verify_here(self):
        for spec, size in (("ML_DSA_44", 2420), ("ML_DSA_65", 3309), ("ML_DSA_87", 4627)):
            key = self.key(KeySpec=spec, KeyUsage="SIGN_VERIFY")
            signature = self.sign(key, "ML_DSA_SHAKE_256")
            self.assertEqual(len(signature), size)
            self.verifies(key, "ML_DSA_SHAKE_256", signature)

    def test_a_digest_is_signed_as_its_message(self):
        key = self.key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        digest = hashlib.sha256(MESSAGE).digest()
        signature = self.sign(key, "ECDSA_SHA_256", digest, MessageType="DIGEST")
        self.verifies(key, "ECDSA_SHA_256", signature)
        self.public(key).verify(signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        self.fails("ValidationException", self.kms.sign,
                   "Digest is invalid length for algorithm ECDSA_SHA_256.", KeyId=key,
                   Message=digest[1:], MessageType="DIGEST", SigningAlgorithm="ECDSA_SHA_256")

    def test_signatures_made_elsewhere_verify_here_and_wrong_ones_do_not(self):
        key = self.key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
        signature = self.sign(key, "RSASSA_PSS_SHA_256")
        for request in ({"Message": b"another"}, {"Signature": signature[:-1] + b"\0"},
                        {"Signature": b"x"}, {"SigningAlgorithm": "RSASSA_PSS_SHA_384"}):
            request = {"KeyId": key, "Message": MESSAGE, "Signature": signature,
                       "SigningAlgorithm": "RSASSA_PSS_SHA_256", **request}
            found = self.fails("KMSInvalidSignatureException", self.kms.verify, **request)
            self.assertNotIn("message", found)

    def test_algorithms_that_do_not_fit_the_key_are_refused(self):
        key = self.key(KeySpec="ECC_NIST_P384", KeyUsage="SIGN_VERIFY")
        for call, extra in ((self.kms.sign, {}), (self.kms.verify, {"Signature": b"x"})):
            self.fails("InvalidKeyUsageException", call,
                       "Algorithm ECDSA_SHA_256 is incompatible with key spec ECC_NIST_P384.",
                       KeyId=key, Message=MESSAGE, SigningAlgorithm="ECDSA_SHA_256", **extra)

    def test_keys_are_used_for_what_they_are(self):
        encrypting = self.key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
        signing = self.key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
        usage = "{} key usage is {} which is not valid for {}."
        self.fails("InvalidKeyUsageException", self.kms.sign,
                   usage.format(arn(encrypting), "ENCRYPT_DECRYPT", "Sign"), KeyId=encrypting,
                   Message=MESSAGE, SigningAlgorithm="RSASSA_PSS_SHA_256")
        self.fails("InvalidKeyUsageException", self.kms.encrypt,
                   usage.format(arn(signing), "SIGN_VERIFY", "Encrypt"), KeyId=signing,
                   Plaintext=b"x", EncryptionAlgorithm="RSAES_OAEP_SHA_256")
        self.fails("InvalidKeyUsageException", self.kms.generate_mac,
                   usage.format(arn(signing), "SIGN_VERIFY", "GenerateMac"), KeyId=signing,
                   Message=MESSAGE, MacAlgorithm="HMAC_SHA_256")
        self.fails("InvalidKeyUsageException", self.kms.generate_data_key, KeyId=encrypting,
                   KeySpec="AES_256")

    def test_messages_have_1_to_4096_bytes(self):
        key = self.key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        self.sign(key, "ECDSA_SHA_256", b"x" * 4096)
        for message in (b"", b"x" * 4097):
            self.fails("ValidationException", self.kms.sign, KeyId=key, Message=message,
                       SigningAlgorithm="ECDSA_SHA_256")


class RsaEncryption(KmsTest):
    LIMITS = {"RSA_2048": (214, 190), "RSA_3072": (342, 318), "RSA_4096": (470, 446)}

    def test_what_is_encrypted_elsewhere_with_the_public_key_is_decrypted_here(self):
        for spec, limits in self.LIMITS.items():
            key = self.key(KeySpec=spec, KeyUsage="ENCRYPT_DECRYPT")
            public = self.kms.get_public_key(KeyId=key)
            self.assertEqual(public["EncryptionAlgorithms"],
                             ["RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"])
            loaded = serialization.load_der_public_key(public["PublicKey"])
            for algorithm, kind, limit in zip(public["EncryptionAlgorithms"],
                                              (hashes.SHA1, hashes.SHA256), limits):
                oaep = padding.OAEP(padding.MGF1(kind()), kind(), None)
                blob = loaded.encrypt(b"x" * limit, oaep)
                opened = self.kms.decrypt(KeyId=key, CiphertextBlob=blob, EncryptionAlgorithm=algorithm)
                self.assertEqual(opened["Plaintext"], b"x" * limit)
                self.assertEqual((opened["KeyId"], opened["EncryptionAlgorithm"]),
                                 (arn(key), algorithm))
                made = self.kms.encrypt(KeyId=key, Plaintext=b"y", EncryptionAlgorithm=algorithm)
                opened = self.kms.decrypt(KeyId=key, CiphertextBlob=made["CiphertextBlob"],
                                          EncryptionAlgorithm=algorithm)
                self.assertEqual(opened["Plaintext"], b"y")
                self.fails("ValidationException", self.kms.encrypt,
                           f"Algorithm {algorithm} and key spec {spec} cannot encrypt data larger than "
                           f"{limit} bytes.", KeyId=key, Plaintext=b"x" * (limit + 1),
                           EncryptionAlgorithm=algorithm)

    def test_what_only_symmetric_keys_take_is_refused(self):
        key = self.key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
        self.fails("InvalidKeyUsageException", self.kms.encrypt,
                   "Algorithm SYMMETRIC_DEFAULT is incompatible with key spec RSA_2048.", KeyId=key,
                   Plaintext=b"x")
        self.fails("ValidationException", self.kms.encrypt, KeyId=key, Plaintext=b"x",
                   EncryptionAlgorithm="RSAES_OAEP_SHA_256", EncryptionContext={"a": "b"})
        self.fails("InvalidCiphertextException", self.kms.decrypt, KeyId=key, CiphertextBlob=b"x" * 256,
                   EncryptionAlgorithm="RSAES_OAEP_SHA_256")
        symmetric = self.key()
        self.fails("InvalidKeyUsageException", self.kms.encrypt, KeyId=symmetric, Plaintext=b"x",
                   EncryptionAlgorithm="RSAES_OAEP_SHA_256")


class PublicKeys(KmsTest):
    def test_a_public_key_tells_what_it_is_for(self):
        key = self.key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        public = self.kms.get_public_key(KeyId=key)
        public.pop("ResponseMetadata")
        loaded = serialization.load_der_public_key(public.pop("PublicKey"))
        self.assertEqual(loaded.curve.name, "secp256r1")
        self.assertEqual(public, {"KeyId": arn(key), "CustomerMasterKeySpec": "ECC_NIST_P256",
                                  "KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY",
                                  "SigningAlgorithms": ["ECDSA_SHA_256"]})
        rsa_key = self.key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
        loaded = serialization.load_der_public_key(
            self.kms.get_public_key(KeyId=rsa_key)["PublicKey"])
        self.assertIsInstance(loaded, rsa.RSAPublicKey)

    def test_secret_keys_have_none(self):
        for request in ({}, {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"}):
            self.fails("UnsupportedOperationException", self.kms.get_public_key,
                       KeyId=self.key(**request))


class Macs(KmsTest):
    def test_macs_have_their_length_and_verify(self):
        for size in (224, 256, 384, 512):
            key = self.key(KeySpec=f"HMAC_{size}", KeyUsage="GENERATE_VERIFY_MAC")
            request = {"KeyId": key, "MacAlgorithm": f"HMAC_SHA_{size}"}
            made = self.kms.generate_mac(Message=MESSAGE, **request)
            self.assertEqual((made["KeyId"], len(made["Mac"])), (arn(key), size // 8))
            self.assertEqual(made["Mac"], self.kms.generate_mac(Message=MESSAGE, **request)["Mac"])
            found = self.kms.verify_mac(Message=MESSAGE, Mac=made["Mac"], **request)
            self.assertTrue(found["MacValid"])
            for wrong in ({"Message": b"another", "Mac": made["Mac"]},
                          {"Message": MESSAGE, "Mac": made["Mac"][:-1]}):
                refused = self.fails("KMSInvalidMacException", self.kms.verify_mac, **request, **wrong)
                self.assertNotIn("message", refused)

    def test_the_algorithm_is_that_of_the_key(self):
        key = self.key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")
        self.fails("InvalidKeyUsageException", self.kms.generate_mac,
                   "Algorithm HMAC_SHA_512 is incompatible with key spec HMAC_256.", KeyId=key,
                   Message=MESSAGE, MacAlgorithm="HMAC_SHA_512")

    def test_an_imported_mac_key_gives_the_macs_of_its_bytes(self):
        from test_import import import_material
        key = self.key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC", Origin="EXTERNAL")
        material = bytes(range(32))
        import_material(self.kms, key, material)
        made = self.kms.generate_mac(KeyId=key, Message=MESSAGE, MacAlgorithm="HMAC_SHA_256")
        self.assertEqual(made["Mac"], hmac.digest(material, MESSAGE, "sha256"))


class SharedSecrets(KmsTest):
    def test_both_sides_find_the_same_secret(self):
        for name, curve in (("P256", ec.SECP256R1), ("P384", ec.SECP384R1), ("P521", ec.SECP521R1)):
            key = self.key(KeySpec=f"ECC_NIST_{name}", KeyUsage="KEY_AGREEMENT")
            mine = serialization.load_der_public_key(self.kms.get_public_key(KeyId=key)["PublicKey"])
            other = ec.generate_private_key(curve())
            public = other.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            made = self.kms.derive_shared_secret(KeyId=key, KeyAgreementAlgorithm="ECDH",
                                                 PublicKey=public)
            self.assertEqual(made["SharedSecret"], other.exchange(ec.ECDH(), mine))
            self.assertEqual((made["KeyId"], made["KeyAgreementAlgorithm"], made["KeyOrigin"]),
                             (arn(key), "ECDH", "AWS_KMS"))

    def test_keys_of_another_curve_and_no_keys_are_refused(self):
        key = self.key(KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")
        other = ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        for public in (other, b"nonsense"):
            self.fails("ValidationException", self.kms.derive_shared_secret, KeyId=key,
                       KeyAgreementAlgorithm="ECDH", PublicKey=public)
        signing = self.key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        self.fails("InvalidKeyUsageException", self.kms.derive_shared_secret, KeyId=signing,
                   KeyAgreementAlgorithm="ECDH", PublicKey=other)


if __name__ == "__main__":
    unittest.main()
