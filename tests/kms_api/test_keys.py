"""Keys, aliases, tags: what is made, shown, listed and refused."""

import datetime
import unittest

from common import ABSENT_KEY, ACCOUNT, KmsTest, REGIONS, arn

SIGNING = {
    "RSA_2048": ["RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384",
                 "RSASSA_PKCS1_V1_5_SHA_512", "RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384",
                 "RSASSA_PSS_SHA_512"],
    "ECC_NIST_P256": ["ECDSA_SHA_256"],
    "ECC_NIST_P384": ["ECDSA_SHA_384"],
    "ECC_NIST_P521": ["ECDSA_SHA_512"],
    "ECC_SECG_P256K1": ["ECDSA_SHA_256"],
    "ECC_NIST_EDWARDS25519": ["ED25519_PH_SHA_512", "ED25519_SHA_512"],
    "ML_DSA_44": ["ML_DSA_SHAKE_256"],
}


class Keys(KmsTest):
    def test_a_symmetric_key_shows_all_its_metadata(self):
        made = self.kms.create_key(Description="books", Tags=[{"TagKey": "a", "TagValue": "b"}])
        metadata = made["KeyMetadata"]
        key = metadata["KeyId"]
        material = metadata.pop("CurrentKeyMaterialId")
        self.assertRegex(material, "^[a-f0-9]{64}$")
        self.assertRegex(key, "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
        self.assertIsInstance(metadata.pop("CreationDate"), datetime.datetime)
        self.assertEqual(metadata, {
            "AWSAccountId": ACCOUNT,
            "KeyId": key,
            "Arn": arn(key),
            "Enabled": True,
            "Description": "books",
            "KeyUsage": "ENCRYPT_DECRYPT",
            "KeyState": "Enabled",
            "Origin": "AWS_KMS",
            "KeyManager": "CUSTOMER",
            "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
            "KeySpec": "SYMMETRIC_DEFAULT",
            "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
            "MultiRegion": False,
        })
        described = self.kms.describe_key(KeyId=key)["KeyMetadata"]
        self.assertEqual(described["CurrentKeyMaterialId"], material)
        self.assertEqual(described["Arn"], metadata["Arn"])

    def test_a_key_is_found_by_id_arn_alias_and_alias_arn(self):
        key = self.key()
        name = f"alias/found-{key[:8]}"
        self.kms.create_alias(AliasName=name, TargetKeyId=arn(key))
        for named in (key, arn(key), name, f"arn:aws:kms:{REGIONS[0]}:{ACCOUNT}:{name}"):
            self.assertEqual(self.kms.describe_key(KeyId=named)["KeyMetadata"]["KeyId"], key)

    def test_what_is_no_key_is_refused_in_the_words_of_aws(self):
        describe = self.kms.describe_key
        missing = f"Key '{arn(ABSENT_KEY)}' does not exist"
        self.fails("NotFoundException", describe, missing, KeyId=ABSENT_KEY)
        self.fails("NotFoundException", describe, missing, KeyId=arn(ABSENT_KEY))
        self.fails("NotFoundException", describe, "Invalid keyId 'nobody'", KeyId="nobody")
        self.fails("NotFoundException", describe, "Invalid arn eu-central-1",
                   KeyId=arn(ABSENT_KEY, "eu-central-1"))
        alias = f"arn:aws:kms:{REGIONS[0]}:{ACCOUNT}:alias/none"
        self.fails("NotFoundException", describe, f"Alias {alias} is not found.", KeyId="alias/none")

    def test_operations_that_take_no_alias_refuse_one(self):
        name = "alias/no-alias-here"
        self.kms.create_alias(AliasName=name, TargetKeyId=self.key())
        for call in (self.kms.enable_key, self.kms.disable_key, self.kms.schedule_key_deletion,
                     self.kms.cancel_key_deletion, self.kms.enable_key_rotation,
                     self.kms.list_resource_tags, self.kms.get_key_policy):
            self.fails("NotFoundException", call, f"Invalid keyId '{name}'", KeyId=name)

    def test_every_kind_of_key_tells_its_algorithms(self):
        for spec, algorithms in SIGNING.items():
            made = self.kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]
            self.assertEqual(sorted(made["SigningAlgorithms"]), algorithms, spec)
            self.assertNotIn("EncryptionAlgorithms", made)
        rsa = self.kms.create_key(KeySpec="RSA_3072", KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]
        self.assertEqual(rsa["EncryptionAlgorithms"], ["RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"])
        self.assertNotIn("CurrentKeyMaterialId", rsa)
        for size in (224, 256, 384, 512):
            mac = self.kms.create_key(KeySpec=f"HMAC_{size}", KeyUsage="GENERATE_VERIFY_MAC")
            self.assertEqual(mac["KeyMetadata"]["MacAlgorithms"], [f"HMAC_SHA_{size}"])
        for curve in ("P256", "P384", "P521"):
            ecdh = self.kms.create_key(KeySpec=f"ECC_NIST_{curve}", KeyUsage="KEY_AGREEMENT")
            self.assertEqual(ecdh["KeyMetadata"]["KeyAgreementAlgorithms"], ["ECDH"])

    def test_kinds_and_uses_that_do_not_go_together_are_refused(self):
        for spec, usage in (
            ("SYMMETRIC_DEFAULT", "SIGN_VERIFY"),
            ("RSA_2048", "GENERATE_VERIFY_MAC"),
            ("ECC_NIST_P256", "ENCRYPT_DECRYPT"),
            ("ECC_SECG_P256K1", "KEY_AGREEMENT"),
            ("HMAC_256", "ENCRYPT_DECRYPT"),
        ):
            self.fails("ValidationException", self.kms.create_key,
                       f"KeyUsage {usage} is not compatible with KeySpec {spec}",
                       KeySpec=spec, KeyUsage=usage)
        self.fails("ValidationException", self.kms.create_key, KeySpec="RSA_2048")
        self.fails("ValidationException", self.kms.create_key, KeySpec="RSA_2048",
                   CustomerMasterKeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
        old = self.kms.create_key(CustomerMasterKeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")
        self.assertEqual(old["KeyMetadata"]["KeySpec"], "RSA_2048")

    def test_what_only_aws_has_is_unsupported(self):
        for request in (
            {"KeySpec": "SM2", "KeyUsage": "SIGN_VERIFY"},
            {"KeySpec": "ML_KEM_768", "KeyUsage": "ENCAPSULATE_DECAPSULATE"},
            {"Origin": "EXTERNAL_KEY_STORE", "XksKeyId": "x"},
        ):
            self.fails("UnsupportedOperationException", self.kms.create_key, **request)
        key = self.key()
        self.fails("UnsupportedOperationException", self.kms.encapsulate, KeyId=key,
                   EncapsulationAlgorithm="ML_KEM")
        self.fails("UnsupportedOperationException", self.kms.generate_data_key, KeyId=key,
                   KeySpec="AES_256",
                   Recipient={"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
                              "AttestationDocument": b"document"})

    def test_descriptions_change(self):
        key = self.key(Description="old")
        self.kms.update_key_description(KeyId=key, Description="new")
        self.assertEqual(self.kms.describe_key(KeyId=key)["KeyMetadata"]["Description"], "new")
        self.kms.update_key_description(KeyId=key, Description="")
        self.assertEqual(self.kms.describe_key(KeyId=key)["KeyMetadata"]["Description"], "")
        self.fails("ValidationException", self.kms.create_key,
                   "1 validation error detected: Value '" + "x" * 1024 + "' at 'description' failed to "
                   "satisfy constraint: Member must have length less than or equal to 8192",
                   Description="x" * 8193)

    def test_enabling_and_disabling_change_nothing_the_second_time(self):
        key = self.key()
        for call, state in ((self.kms.disable_key, "Disabled"), (self.kms.enable_key, "Enabled")):
            for _ in range(2):
                call(KeyId=key)
                metadata = self.kms.describe_key(KeyId=key)["KeyMetadata"]
                self.assertEqual(metadata["KeyState"], state)
                self.assertEqual(metadata["Enabled"], state == "Enabled")

    def test_deletion_has_a_window_and_can_be_cancelled(self):
        key = self.key()
        done = self.kms.schedule_key_deletion(KeyId=key)
        self.assertEqual(done["KeyId"], arn(key))
        self.assertEqual((done["KeyState"], done["PendingWindowInDays"]), ("PendingDeletion", 30))
        days = done["DeletionDate"] - datetime.datetime.now(datetime.timezone.utc)
        self.assertTrue(29 <= days.days <= 30)
        metadata = self.kms.describe_key(KeyId=key)["KeyMetadata"]
        self.assertEqual(metadata["DeletionDate"], done["DeletionDate"])
        self.assertEqual(self.kms.cancel_key_deletion(KeyId=key)["KeyId"], arn(key))
        metadata = self.kms.describe_key(KeyId=key)["KeyMetadata"]
        self.assertEqual(metadata["KeyState"], "Disabled")
        self.assertNotIn("DeletionDate", metadata)
        self.fails("KMSInvalidStateException", self.kms.cancel_key_deletion,
                   f"{arn(key)} is not pending deletion.", KeyId=key)
        for days in (6, 31):
            self.fails("ValidationException", self.kms.schedule_key_deletion, KeyId=key,
                       PendingWindowInDays=days)
        self.assertEqual(
            self.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)["PendingWindowInDays"], 7)

    def test_the_last_use_of_a_key_is_told(self):
        key = self.key()
        unused = self.kms.get_key_last_usage(KeyId=key)
        self.assertNotIn("Operation", unused.get("KeyLastUsage", {}))
        self.kms.encrypt(KeyId=key, Plaintext=b"x")
        used = self.kms.get_key_last_usage(KeyId=key)
        self.assertEqual(used["KeyLastUsage"]["Operation"], "Encrypt")
        self.assertGreaterEqual(used["KeyLastUsage"]["Timestamp"], used["KeyCreationDate"])


class Lists(KmsTest):
    def test_keys_come_in_pages_and_each_once(self):
        made = {self.key() for _ in range(7)}
        seen, marker, pages = [], {}, 0
        while True:
            page = self.kms.list_keys(Limit=3, **marker)
            self.assertLessEqual(len(page["Keys"]), 3)
            seen += [entry["KeyId"] for entry in page["Keys"]]
            pages += 1
            if not page["Truncated"]:
                self.assertNotIn("NextMarker", page)
                break
            marker = {"Marker": page["NextMarker"]}
        self.assertEqual(len(seen), len(set(seen)))
        self.assertLessEqual(made, set(seen))
        self.assertGreaterEqual(pages, 3)
        paginated = [key["KeyArn"] for page in self.kms.get_paginator("list_keys").paginate(
            PaginationConfig={"PageSize": 2}) for key in page["Keys"]]
        self.assertEqual(sorted(paginated), sorted(arn(key) for key in seen))

    def test_limits_and_markers_are_checked(self):
        for limit, bound in ((0, "greater than or equal to 1"), (1001, "less than or equal to 1000")):
            with self.subTest(limit):
                unchecked = self.unchecked()
                self.fails("ValidationException", unchecked.list_keys,
                           f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy "
                           f"constraint: Member must have value {bound}", Limit=limit)
        for call, request in (
            (self.kms.list_keys, {}),
            (self.kms.list_aliases, {}),
            (self.kms.list_resource_tags, {"KeyId": self.key()}),
            (self.kms.list_key_rotations, {"KeyId": self.key()}),
            (self.kms.list_grants, {"KeyId": self.key()}),
        ):
            self.fails("InvalidMarkerException", call, Marker="nobody gave this", **request)

    @staticmethod
    def unchecked():
        """A client that leaves the checking of requests to the server."""
        from botocore.config import Config

        from common import client
        return client(config=Config(parameter_validation=False))


class Aliases(KmsTest):
    def test_a_name_is_made_moved_listed_and_removed(self):
        first, second = self.key(), self.key()
        name = f"alias/moving/{first[:8]}"
        self.kms.create_alias(AliasName=name, TargetKeyId=first)
        [entry] = self.kms.list_aliases(KeyId=first)["Aliases"]
        self.assertEqual((entry["AliasName"], entry["TargetKeyId"]), (name, first))
        self.assertEqual(entry["AliasArn"], f"arn:aws:kms:{REGIONS[0]}:{ACCOUNT}:{name}")
        self.assertEqual(entry["CreationDate"], entry["LastUpdatedDate"])
        self.fails("AlreadyExistsException", self.kms.create_alias,
                   f"An alias with the name {entry['AliasArn']} already exists",
                   AliasName=name, TargetKeyId=second)
        self.kms.update_alias(AliasName=name, TargetKeyId=second)
        self.assertEqual(self.kms.list_aliases(KeyId=first)["Aliases"], [])
        self.assertEqual(self.kms.describe_key(KeyId=name)["KeyMetadata"]["KeyId"], second)
        self.kms.delete_alias(AliasName=name)
        self.fails("NotFoundException", self.kms.delete_alias, AliasName=name)
        self.fails("NotFoundException", self.kms.update_alias, AliasName=name, TargetKeyId=first)

    def test_names_have_a_form(self):
        key = self.key()
        for name in ("none", "alias/", "alias/aws/mine"):
            self.fails("InvalidAliasNameException", self.kms.create_alias, AliasName=name,
                       TargetKeyId=key)
        self.fails("ValidationException", self.kms.create_alias,
                   "1 validation error detected: Value 'alias/a b' at 'aliasName' failed to satisfy "
                   "constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$",
                   AliasName="alias/a b", TargetKeyId=key)

    def test_a_name_moves_only_to_a_key_of_its_kind(self):
        symmetric, signing = self.key(), self.key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
        name = f"alias/kind/{symmetric[:8]}"
        self.kms.create_alias(AliasName=name, TargetKeyId=symmetric)
        self.fails("ValidationException", self.kms.update_alias, AliasName=name, TargetKeyId=signing)

    def test_a_key_has_at_most_50_names(self):
        key = self.key()
        for number in range(50):
            self.kms.create_alias(AliasName=f"alias/many/{key[:8]}/{number}", TargetKeyId=key)
        self.fails("LimitExceededException", self.kms.create_alias,
                   AliasName=f"alias/many/{key[:8]}/50", TargetKeyId=key)


class Tags(KmsTest):
    def test_tags_are_added_changed_listed_and_taken(self):
        key = self.key(Tags=[{"TagKey": "team", "TagValue": "blue"}])
        self.kms.tag_resource(KeyId=key, Tags=[
            {"TagKey": "team", "TagValue": "red"}, {"TagKey": "cost", "TagValue": ""}])
        expected = [{"TagKey": "cost", "TagValue": ""}, {"TagKey": "team", "TagValue": "red"}]
        self.assertEqual(self.kms.list_resource_tags(KeyId=key)["Tags"], expected)
        page = self.kms.list_resource_tags(KeyId=key, Limit=1)
        self.assertEqual((page["Tags"], page["Truncated"]), (expected[:1], True))
        page = self.kms.list_resource_tags(KeyId=key, Limit=1, Marker=page["NextMarker"])
        self.assertEqual((page["Tags"], page["Truncated"]), (expected[1:], False))
        self.kms.untag_resource(KeyId=key, TagKeys=["team", "nothing"])
        self.assertEqual(self.kms.list_resource_tags(KeyId=key)["Tags"], expected[:1])

    def test_tags_have_bounds(self):
        key = self.key()
        tag = lambda key, value="": [{"TagKey": key, "TagValue": value}]
        self.fails("TagException", self.kms.tag_resource, KeyId=key, Tags=tag("aws:mine"))
        self.fails("TagException", self.kms.tag_resource, KeyId=key, Tags=tag("a") + tag("a"))
        many = [{"TagKey": str(number), "TagValue": ""} for number in range(51)]
        self.fails("TagException", self.kms.create_key, Tags=many)
        self.fails("ValidationException", self.kms.tag_resource,
                   f"1 validation error detected: Value '{'k' * 129}' at 'tags.1.member.tagKey' failed "
                   "to satisfy constraint: Member must have length less than or equal to 128",
                   KeyId=key, Tags=tag("k" * 129))


if __name__ == "__main__":
    unittest.main()
