"""Encrypt, Decrypt, ReEncrypt, data keys, random: what goes in comes out, and nothing else."""

import base64
import json
import unittest
import urllib.request

from cryptography.hazmat.primitives import serialization

from common import ABSENT_KEY, ENDPOINT, KmsTest, arn, client

PAIRS = ("RSA_2048", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1",
         "ECC_NIST_EDWARDS25519")


class Symmetric(KmsTest):
    def test_what_was_encrypted_is_decrypted_without_naming_the_key(self):
        key = self.key()
        made = self.kms.encrypt(KeyId=key, Plaintext=b"secret")
        self.assertEqual((made["KeyId"], made["EncryptionAlgorithm"]), (arn(key), "SYMMETRIC_DEFAULT"))
        opened = self.kms.decrypt(CiphertextBlob=made["CiphertextBlob"])
        self.assertEqual((opened["Plaintext"], opened["KeyId"]), (b"secret", arn(key)))
        self.assertEqual(opened["EncryptionAlgorithm"], "SYMMETRIC_DEFAULT")
        current = self.kms.describe_key(KeyId=key)["KeyMetadata"]["CurrentKeyMaterialId"]
        self.assertEqual(opened["KeyMaterialId"], current)
        again = self.kms.encrypt(KeyId=key, Plaintext=b"secret")
        self.assertNotEqual(made["CiphertextBlob"], again["CiphertextBlob"])

    def test_plaintexts_have_1_to_4096_bytes(self):
        key = self.key()
        for size in (1, 4096):
            blob = self.kms.encrypt(KeyId=key, Plaintext=b"x" * size)["CiphertextBlob"]
            self.assertLessEqual(len(blob), 6144)
            self.assertEqual(self.kms.decrypt(CiphertextBlob=blob)["Plaintext"], b"x" * size)
        for size, bound in ((0, "greater than or equal to 1"), (4097, "less than or equal to 4096")):
            self.fails("ValidationException", self.kms.encrypt,
                       "1 validation error detected: Value at 'plaintext' failed to satisfy "
                       f"constraint: Member must have length {bound}", KeyId=key, Plaintext=b"x" * size)

    def test_another_key_than_the_named_one_is_incorrect(self):
        first, second = self.key(), self.key()
        blob = self.kms.encrypt(KeyId=first, Plaintext=b"x")["CiphertextBlob"]
        self.assertEqual(self.kms.decrypt(CiphertextBlob=blob, KeyId=first)["Plaintext"], b"x")
        self.fails("IncorrectKeyException", self.kms.decrypt,
                   "The key ID in the request does not identify a CMK that can perform this operation.",
                   CiphertextBlob=blob, KeyId=second)
        self.fails("IncorrectKeyException", self.kms.re_encrypt, CiphertextBlob=blob,
                   SourceKeyId=second, DestinationKeyId=first)

    def test_every_changed_byte_is_noticed(self):
        key = self.key()
        blob = self.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        for at in (0, 1, 20, len(blob) - 1):
            bad = bytearray(blob)
            bad[at] ^= 1
            with self.subTest(at), self.assertRaises(self.kms.exceptions.ClientError) as caught:
                self.kms.decrypt(CiphertextBlob=bytes(bad))
            self.assertIn(caught.exception.response["Error"]["Code"],
                          ("InvalidCiphertextException", "NotFoundException"))
        found = self.fails("InvalidCiphertextException", self.kms.decrypt, CiphertextBlob=b"nonsense")
        self.assertNotIn("message", found)

    def test_contexts_bind_whatever_their_order_and_exactly(self):
        key = self.key()
        blob = self.kms.encrypt(KeyId=key, Plaintext=b"x",
                                EncryptionContext={"a": "1", "b": "2"})["CiphertextBlob"]
        opened = self.kms.decrypt(CiphertextBlob=blob, EncryptionContext={"b": "2", "a": "1"})
        self.assertEqual(opened["Plaintext"], b"x")
        for wrong in ({}, {"a": "1"}, {"a": "1", "B": "2"}, {"a": "1", "b": "2 "},
                      {"a": "2", "b": "1"}, {"a": "1", "b": "2", "c": "3"}):
            self.fails("InvalidCiphertextException", self.kms.decrypt, CiphertextBlob=blob,
                       EncryptionContext=wrong)

    def test_regression_of_peers_contexts_that_join_to_the_same_text_differ(self):
        key = self.key()
        blob = self.kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"ab": "c"})
        self.fails("InvalidCiphertextException", self.kms.decrypt,
                   CiphertextBlob=blob["CiphertextBlob"], EncryptionContext={"a": "bc"})

    def test_re_encryption_moves_key_and_context_without_showing_the_plaintext(self):
        first, second = self.key(), self.key()
        blob = self.kms.encrypt(KeyId=first, Plaintext=b"x", EncryptionContext={"a": "1"})
        moved = self.kms.re_encrypt(
            CiphertextBlob=blob["CiphertextBlob"], SourceEncryptionContext={"a": "1"},
            DestinationKeyId=second, DestinationEncryptionContext={"b": "2"})
        self.assertEqual((moved["SourceKeyId"], moved["KeyId"]), (arn(first), arn(second)))
        self.assertRegex(moved["SourceKeyMaterialId"], "^[a-f0-9]{64}$")
        self.assertNotEqual(moved["SourceKeyMaterialId"], moved["DestinationKeyMaterialId"])
        opened = self.kms.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext={"b": "2"})
        self.assertEqual((opened["Plaintext"], opened["KeyId"]), (b"x", arn(second)))
        self.fails("InvalidCiphertextException", self.kms.re_encrypt,
                   CiphertextBlob=blob["CiphertextBlob"], DestinationKeyId=second)

    def test_re_encryption_goes_from_symmetric_to_rsa_and_back(self):
        symmetric, rsa = self.key(), self.key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
        blob = self.kms.encrypt(KeyId=symmetric, Plaintext=b"x")["CiphertextBlob"]
        moved = self.kms.re_encrypt(CiphertextBlob=blob, DestinationKeyId=rsa,
                                    DestinationEncryptionAlgorithm="RSAES_OAEP_SHA_256")
        self.assertEqual(len(moved["CiphertextBlob"]), 256)
        self.assertEqual(moved["DestinationEncryptionAlgorithm"], "RSAES_OAEP_SHA_256")
        back = self.kms.re_encrypt(
            CiphertextBlob=moved["CiphertextBlob"], SourceKeyId=rsa,
            SourceEncryptionAlgorithm="RSAES_OAEP_SHA_256", DestinationKeyId=symmetric)
        self.assertEqual(self.kms.decrypt(CiphertextBlob=back["CiphertextBlob"])["Plaintext"], b"x")

    def test_old_ciphertexts_open_after_a_rotation(self):
        key = self.key()
        blob = self.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        before = self.kms.decrypt(CiphertextBlob=blob)["KeyMaterialId"]
        self.kms.rotate_key_on_demand(KeyId=key)
        self.assertEqual(self.kms.decrypt(CiphertextBlob=blob)["KeyMaterialId"], before)
        after = self.kms.generate_data_key(KeyId=key, KeySpec="AES_256")["KeyMaterialId"]
        self.assertNotEqual(before, after)


class DataKeys(KmsTest):
    def test_data_keys_have_the_length_that_is_asked_for(self):
        key = self.key()
        for request, length in (({"KeySpec": "AES_256"}, 32), ({"KeySpec": "AES_128"}, 16),
                                ({"NumberOfBytes": 1}, 1), ({"NumberOfBytes": 1024}, 1024)):
            made = self.kms.generate_data_key(KeyId=key, EncryptionContext={"a": "b"}, **request)
            self.assertEqual((len(made["Plaintext"]), made["KeyId"]), (length, arn(key)))
            opened = self.kms.decrypt(CiphertextBlob=made["CiphertextBlob"],
                                      EncryptionContext={"a": "b"})
            self.assertEqual(opened["Plaintext"], made["Plaintext"])
            hidden = self.kms.generate_data_key_without_plaintext(KeyId=key, **request)
            self.assertNotIn("Plaintext", hidden)
            opened = self.kms.decrypt(CiphertextBlob=hidden["CiphertextBlob"])
            self.assertEqual(len(opened["Plaintext"]), length)

    def test_exactly_one_way_names_the_length(self):
        key = self.key()
        message = "Please specify either number of bytes or key spec, but not both."
        for call in (self.kms.generate_data_key, self.kms.generate_data_key_without_plaintext):
            self.fails("ValidationException", call, message, KeyId=key)
            self.fails("ValidationException", call, message, KeyId=key, KeySpec="AES_256",
                       NumberOfBytes=32)
        self.fails("ValidationException", self.kms.generate_data_key,
                   "1 validation error detected: Value '1025' at 'numberOfBytes' failed to satisfy "
                   "constraint: Member must have value less than or equal to 1024",
                   KeyId=key, NumberOfBytes=1025)
        self.fails("ValidationException", self.kms.generate_data_key,
                   "1 validation error detected: Value 'AES_512' at 'keySpec' failed to satisfy "
                   "constraint: Member must satisfy enum value set: [AES_256, AES_128]",
                   KeyId=key, KeySpec="AES_512")

    def test_data_key_pairs_load_and_match(self):
        key = self.key()
        for spec in PAIRS:
            made = self.kms.generate_data_key_pair(KeyId=key, KeyPairSpec=spec,
                                                   EncryptionContext={"a": "b"})
            private = serialization.load_der_private_key(made["PrivateKeyPlaintext"], None)
            public = private.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
            self.assertEqual(public, made["PublicKey"], spec)
            self.assertEqual((made["KeyPairSpec"], made["KeyId"]), (spec, arn(key)))
            opened = self.kms.decrypt(CiphertextBlob=made["PrivateKeyCiphertextBlob"],
                                      EncryptionContext={"a": "b"})
            self.assertEqual(opened["Plaintext"], made["PrivateKeyPlaintext"])
        hidden = self.kms.generate_data_key_pair_without_plaintext(
            KeyId=key, KeyPairSpec="ECC_NIST_P256")
        self.assertNotIn("PrivateKeyPlaintext", hidden)
        opened = self.kms.decrypt(CiphertextBlob=hidden["PrivateKeyCiphertextBlob"])
        serialization.load_der_private_key(opened["Plaintext"], None)
        for spec in ("SM2", "ML_KEM_512"):
            self.fails("UnsupportedOperationException", self.kms.generate_data_key_pair, KeyId=key,
                       KeyPairSpec=spec)

    def test_random_bytes_are_many_and_different(self):
        for size in (1, 32, 1024):
            self.assertEqual(len(self.kms.generate_random(NumberOfBytes=size)["Plaintext"]), size)
        first, second = (self.kms.generate_random(NumberOfBytes=32)["Plaintext"] for _ in range(2))
        self.assertNotEqual(first, second)
        self.fails("ValidationException", self.kms.generate_random, NumberOfBytes=1025)


class DryRun(KmsTest):
    MESSAGE = "The request would have succeeded, but the DryRun option is set."

    def test_a_dry_run_says_that_it_would_succeed_and_does_nothing(self):
        key, mac = self.key(), self.key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")
        sign = self.key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        blob = self.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        for call, request in (
            (self.kms.encrypt, {"KeyId": key, "Plaintext": b"x"}),
            (self.kms.decrypt, {"CiphertextBlob": blob}),
            (self.kms.re_encrypt, {"CiphertextBlob": blob, "DestinationKeyId": key}),
            (self.kms.generate_data_key, {"KeyId": key, "KeySpec": "AES_256"}),
            (self.kms.generate_data_key_without_plaintext, {"KeyId": key, "KeySpec": "AES_256"}),
            (self.kms.generate_data_key_pair, {"KeyId": key, "KeyPairSpec": "ECC_NIST_P256"}),
            (self.kms.generate_data_key_pair_without_plaintext,
             {"KeyId": key, "KeyPairSpec": "ECC_NIST_P256"}),
            (self.kms.generate_mac, {"KeyId": mac, "Message": b"x", "MacAlgorithm": "HMAC_SHA_256"}),
            (self.kms.sign, {"KeyId": sign, "Message": b"x", "SigningAlgorithm": "ECDSA_SHA_256"}),
            (self.kms.create_grant, {"KeyId": key, "GranteePrincipal": "arn:aws:iam::000000000000:user/x",
                                     "Operations": ["Decrypt"]}),
        ):
            with self.subTest(call.__name__):
                self.fails("DryRunOperationException", call, self.MESSAGE, DryRun=True, **request)
        self.assertEqual(self.kms.list_grants(KeyId=key)["Grants"], [])

    def test_a_dry_run_fails_as_the_request_would(self):
        key = self.key()
        self.kms.disable_key(KeyId=key)
        self.fails("DisabledException", self.kms.encrypt, f"{arn(key)} is disabled.", KeyId=key,
                   Plaintext=b"x", DryRun=True)
        self.fails("NotFoundException", self.kms.encrypt, KeyId=ABSENT_KEY, Plaintext=b"x", DryRun=True)

    def test_a_dry_run_may_leave_the_ciphertext_out(self):
        key = self.key()
        self.fails("DryRunOperationException", self.kms.decrypt, self.MESSAGE, KeyId=key,
                   DryRun=True, DryRunModifiers=["IGNORE_CIPHERTEXT"])


class Protocol(unittest.TestCase):
    """What no client library sends."""

    def post(self, target, body, **headers):
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        from common import CREDENTIALS, REGIONS
        signed = AWSRequest("POST", ENDPOINT + "/", data=body, headers={
            "Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target, **headers})
        SigV4Auth(Credentials(*CREDENTIALS["root"]), "kms", REGIONS[0]).add_auth(signed)
        request = urllib.request.Request(signed.url, data=body, headers=dict(signed.headers))
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def test_errors_have_their_form_on_the_wire(self):
        status, body, headers = self.post("TrentService.DescribeKey", b'{"KeyId": "nobody"}')
        self.assertEqual(status, 400)
        self.assertEqual(json.loads(body), {"__type": "NotFoundException",
                                            "message": "Invalid keyId 'nobody'"})
        self.assertEqual(headers["Content-Type"], "application/x-amz-json-1.1")
        self.assertTrue(headers["x-amzn-RequestId"])

    def test_json_of_the_wrong_form_is_no_serialised_request(self):
        for body in (b"{", b"[]", b'"x"', b'{"KeyId": 1}', b'{"KeyId": {}}', b'{"KeyId": "x",}',
                     b'{"KeyId": "x", "GrantTokens": "x"}', b"\xff"):
            status, answer, _ = self.post("TrentService.DescribeKey", body)
            self.assertEqual((status, json.loads(answer)["__type"]), (400, "SerializationException"))
        status, answer, _ = self.post("TrentService.Encrypt", b'{"KeyId": "x", "Plaintext": "?"}')
        self.assertEqual((status, json.loads(answer)["__type"]), (400, "SerializationException"))

    def test_missing_members_are_named(self):
        status, body, _ = self.post("TrentService.Encrypt", b"{}")
        self.assertEqual((status, json.loads(body)), (400, {
            "__type": "ValidationException",
            "message": "2 validation errors detected: Value null at 'keyId' failed to satisfy "
                       "constraint: Member must not be null; Value null at 'plaintext' failed to "
                       "satisfy constraint: Member must not be null"}))

    def test_unknown_members_are_ignored_and_unknown_operations_refused(self):
        status, _, _ = self.post("TrentService.ListKeys", b'{"Colour": [1], "Limit": null}')
        self.assertEqual(status, 200)
        for target in ("TrentService.Nothing", "TrentService.", "Other.ListKeys", "ListKeys"):
            status, body, _ = self.post(target, b"{}")
            self.assertIn(status, (400, 404))
            self.assertEqual(json.loads(body)["__type"], "UnknownOperationException", target)

    def test_answers_to_a_plain_request_are_plain(self):
        status, body, headers = self.post("TrentService.GenerateRandom", b'{"NumberOfBytes": 8}')
        self.assertEqual((status, headers["Content-Type"]), (200, "application/x-amz-json-1.1"))
        self.assertEqual(len(base64.b64decode(json.loads(body)["Plaintext"])), 8)


class Regions(KmsTest):
    def test_arns_have_the_region_that_the_client_signed_for(self):
        other = client(region="ap-south-1")
        key = other.create_key()["KeyMetadata"]
        self.assertEqual(key["Arn"], arn(key["KeyId"], "ap-south-1"))
        blob = other.encrypt(KeyId=key["Arn"], Plaintext=b"x")
        self.assertEqual(blob["KeyId"], key["Arn"])
        self.fails("NotFoundException", self.kms.describe_key, "Invalid arn ap-south-1",
                   KeyId=key["Arn"])


if __name__ == "__main__":
    unittest.main()
