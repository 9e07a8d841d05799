"""The table of states: what each operation answers for a key in each state, cell by cell."""

import unittest

from common import KmsTest, arn
from test_import import import_material

OK, DISABLED, INVALID, UNSUPPORTED = "ok", "DisabledException", "KMSInvalidStateException", \
    "UnsupportedOperationException"
STATES = ("Enabled", "Disabled", "PendingDeletion", "PendingImport")
GRANTEE = "arn:aws:iam::000000000000:user/somebody"

# operation, request without the key, outcome per state
CRYPTO = (OK, DISABLED, INVALID, INVALID)
ALWAYS = (OK, OK, OK, OK)
SYMMETRIC = (
    ("encrypt", {"Plaintext": b"x"}, CRYPTO),
    ("generate_data_key", {"KeySpec": "AES_256"}, CRYPTO),
    ("generate_data_key_without_plaintext", {"KeySpec": "AES_256"}, CRYPTO),
    ("generate_data_key_pair", {"KeyPairSpec": "ECC_NIST_P256"}, CRYPTO),
    ("generate_data_key_pair_without_plaintext", {"KeyPairSpec": "ECC_NIST_P256"}, CRYPTO),
    ("create_grant", {"GranteePrincipal": GRANTEE, "Operations": ["Decrypt"]}, CRYPTO),
    ("describe_key", {}, ALWAYS),
    ("list_aliases", {}, ALWAYS),
    ("list_grants", {}, ALWAYS),
    ("list_key_policies", {}, ALWAYS),
    ("list_resource_tags", {}, ALWAYS),
    ("get_key_policy", {}, ALWAYS),
    ("get_key_last_usage", {}, ALWAYS),
    ("tag_resource", {"Tags": [{"TagKey": "a", "TagValue": "b"}]}, (OK, OK, INVALID, OK)),
    ("untag_resource", {"TagKeys": ["a"]}, (OK, OK, INVALID, OK)),
    ("update_key_description", {"Description": "x"}, (OK, OK, INVALID, OK)),
    ("schedule_key_deletion", {}, (OK, OK, INVALID, OK)),
    ("cancel_key_deletion", {}, (INVALID, INVALID, OK, INVALID)),
    ("enable_key", {}, (OK, OK, INVALID, INVALID)),
    ("disable_key", {}, (OK, OK, INVALID, INVALID)),
)
# A key that waits for its import has another origin, which these refuse first.
ROTATION = (
    ("enable_key_rotation", {}, (OK, DISABLED, INVALID, UNSUPPORTED)),
    ("disable_key_rotation", {}, (OK, DISABLED, INVALID, UNSUPPORTED)),
    ("rotate_key_on_demand", {}, (OK, DISABLED, INVALID, UNSUPPORTED)),
    ("get_key_rotation_status", {}, ALWAYS),
)
SIGNING = (
    ("sign", {"Message": b"x", "SigningAlgorithm": "ECDSA_SHA_256"}, CRYPTO),
    ("verify", {"Message": b"x", "Signature": b"x", "SigningAlgorithm": "ECDSA_SHA_256"},
     ("KMSInvalidSignatureException", DISABLED, INVALID, INVALID)),
    ("get_public_key", {}, CRYPTO),
)
MAC = (
    ("generate_mac", {"Message": b"x", "MacAlgorithm": "HMAC_SHA_256"}, CRYPTO),
    ("verify_mac", {"Message": b"x", "Mac": b"x", "MacAlgorithm": "HMAC_SHA_256"},
     ("KMSInvalidMacException", DISABLED, INVALID, INVALID)),
)


class States(KmsTest):
    def in_state(self, state, **request):
        if state == "PendingImport":
            return self.key(Origin="EXTERNAL", **request)
        key = self.key(**request)
        if state == "Disabled":
            self.kms.disable_key(KeyId=key)
        elif state == "PendingDeletion":
            self.kms.schedule_key_deletion(KeyId=key)
        return key

    def outcome(self, call, request):
        try:
            call(**request)
            return OK
        except self.kms.exceptions.ClientError as error:
            return error.response["Error"]["Code"]

    def check(self, rows, **spec):
        for name, request, expected in rows:
            for state, outcome in zip(STATES, expected):
                with self.subTest(operation=name, state=state):
                    key = self.in_state(state, **spec)
                    call = getattr(self.kms, name)
                    self.assertEqual(self.outcome(call, {"KeyId": key, **request}), outcome)

    def test_symmetric_keys(self):
        self.check(SYMMETRIC)

    def test_rotation(self):
        self.check(ROTATION)

    def test_signing_keys(self):
        self.check(SIGNING, KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")

    def test_mac_keys(self):
        self.check(MAC, KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")

    def test_agreement_keys(self):
        public = self.kms.get_public_key(
            KeyId=self.key(KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT"))["PublicKey"]
        self.check((("derive_shared_secret",
                     {"KeyAgreementAlgorithm": "ECDH", "PublicKey": public}, CRYPTO),),
                   KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")

    def test_ciphertexts_and_aliases_of_keys_that_changed_state(self):
        for state, decrypts, named in (
            ("Enabled", OK, OK), ("Disabled", DISABLED, OK), ("PendingDeletion", INVALID, INVALID),
            ("PendingImport", INVALID, OK),
        ):
            with self.subTest(state):
                key = self.key(Origin="EXTERNAL")
                import_material(self.kms, key, b"k" * 32)
                blob = self.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
                other = self.key()
                {"Enabled": lambda: None,
                 "Disabled": lambda: self.kms.disable_key(KeyId=key),
                 "PendingDeletion": lambda: self.kms.schedule_key_deletion(KeyId=key),
                 "PendingImport": lambda: self.kms.delete_imported_key_material(KeyId=key),
                 }[state]()
                self.assertEqual(self.outcome(self.kms.decrypt, {"CiphertextBlob": blob}), decrypts)
                self.assertEqual(self.outcome(self.kms.re_encrypt, {
                    "CiphertextBlob": blob, "DestinationKeyId": other}), decrypts)
                own = self.kms.encrypt(KeyId=other, Plaintext=b"x")["CiphertextBlob"]
                self.assertEqual(self.outcome(self.kms.re_encrypt, {
                    "CiphertextBlob": own, "DestinationKeyId": key}), decrypts)
                name = f"alias/state/{key[:8]}"
                self.assertEqual(self.outcome(self.kms.create_alias, {
                    "AliasName": name, "TargetKeyId": key}), named)
                if named == OK:
                    self.kms.delete_alias(AliasName=name)

    def test_messages_name_the_key_and_its_state(self):
        disabled, deleted = self.in_state("Disabled"), self.in_state("PendingDeletion")
        self.fails(DISABLED, self.kms.encrypt, f"{arn(disabled)} is disabled.", KeyId=disabled,
                   Plaintext=b"x")
        self.fails(INVALID, self.kms.encrypt, f"{arn(deleted)} is pending deletion.", KeyId=deleted,
                   Plaintext=b"x")
        waiting = self.in_state("PendingImport")
        self.fails(INVALID, self.kms.encrypt, f"{arn(waiting)} is pending import.", KeyId=waiting,
                   Plaintext=b"x")


class Rotation(KmsTest):
    def test_the_schedule_is_set_shown_changed_and_taken(self):
        key = self.key()
        self.assertEqual(self.status(key), {"KeyId": key, "KeyRotationEnabled": False})
        self.kms.enable_key_rotation(KeyId=key)
        status = self.status(key)
        self.assertEqual((status["KeyRotationEnabled"], status["RotationPeriodInDays"]), (True, 365))
        created = self.kms.describe_key(KeyId=key)["KeyMetadata"]["CreationDate"]
        self.assertEqual((status["NextRotationDate"] - created).days, 365)
        self.kms.enable_key_rotation(KeyId=key, RotationPeriodInDays=90)
        self.assertEqual(self.status(key)["RotationPeriodInDays"], 90)
        self.kms.disable_key_rotation(KeyId=key)
        self.assertFalse(self.status(key)["KeyRotationEnabled"])
        for days, bound in ((89, "greater than or equal to 90"), (2561, "less than or equal to 2560")):
            self.fails("ValidationException", self.unchecked().enable_key_rotation,
                       f"1 validation error detected: Value '{days}' at 'rotationPeriodInDays' failed "
                       f"to satisfy constraint: Member must have value {bound}",
                       KeyId=key, RotationPeriodInDays=days)

    def status(self, key):
        status = self.kms.get_key_rotation_status(KeyId=key)
        status.pop("ResponseMetadata")
        return status

    @staticmethod
    def unchecked():
        from botocore.config import Config

        from common import client
        return client(config=Config(parameter_validation=False))

    def test_rotations_are_listed_and_end_after_25(self):
        key = self.key()
        first = self.kms.describe_key(KeyId=key)["KeyMetadata"]["CurrentKeyMaterialId"]
        self.assertEqual(self.kms.list_key_rotations(KeyId=key)["Rotations"], [])
        self.assertEqual(self.kms.rotate_key_on_demand(KeyId=key)["KeyId"], key)
        [rotation] = self.kms.list_key_rotations(KeyId=key)["Rotations"]
        self.assertEqual((rotation["KeyId"], rotation["RotationType"]), (key, "ON_DEMAND"))
        listed = self.kms.list_key_rotations(KeyId=key, IncludeKeyMaterial="ALL_KEY_MATERIAL")
        self.assertEqual([(entry["KeyMaterialId"], entry["KeyMaterialState"])
                          for entry in listed["Rotations"]],
                         [(first, "NON_CURRENT"), (rotation["KeyMaterialId"], "CURRENT")])
        for _ in range(24):
            self.kms.rotate_key_on_demand(KeyId=key)
        self.fails("LimitExceededException", self.kms.rotate_key_on_demand, KeyId=key)
        pages = self.kms.get_paginator("list_key_rotations").paginate(
            KeyId=key, PaginationConfig={"PageSize": 10})
        self.assertEqual(sum(len(page["Rotations"]) for page in pages), 25)

    def test_only_symmetric_keys_of_this_keystore_rotate_by_themselves(self):
        for request in ({"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"},
                        {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"}):
            key = self.key(**request)
            for call in (self.kms.enable_key_rotation, self.kms.rotate_key_on_demand,
                         self.kms.disable_key_rotation, self.kms.get_key_rotation_status):
                self.fails(UNSUPPORTED, call, KeyId=key)


if __name__ == "__main__":
    unittest.main()
