"""Key policies and grants: who may do what, and what a refusal says."""

import json
import unittest

from common import ABSENT_KEY, KmsTest, arn, client

ACCOUNT = "arn:aws:iam::000000000000:"
ALICE, BOB = f"{ACCOUNT}user/alice", f"{ACCOUNT}user/bob"


def policy(*statements):
    root = {"Sid": "root", "Effect": "Allow", "Principal": {"AWS": f"{ACCOUNT}root"},
            "Action": "kms:*", "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [root, *statements]})


def allow(principal, *actions, **more):
    return {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": list(actions),
            "Resource": "*", **more}


class AccessTest(KmsTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.alice, cls.bob = client("alice"), client("bob")


class Policies(AccessTest):
    def test_a_key_has_one_policy_by_default(self):
        key = self.key()
        self.assertEqual(self.kms.list_key_policies(KeyId=key)["PolicyNames"], ["default"])
        shown = self.kms.get_key_policy(KeyId=key, PolicyName="default")
        self.assertEqual(shown["PolicyName"], "default")
        document = json.loads(shown["Policy"])
        self.assertEqual(document["Version"], "2012-10-17")
        self.assertEqual(self.kms.get_key_policy(KeyId=key)["Policy"], shown["Policy"])
        self.fails("NotFoundException", self.kms.get_key_policy, KeyId=key, PolicyName="other")

    def test_a_policy_is_kept_as_it_was_written(self):
        document = policy(allow(ALICE, "kms:Decrypt"))
        key = self.key(Policy=document)
        self.assertEqual(self.kms.get_key_policy(KeyId=key)["Policy"], document)
        document = policy(allow(BOB, "kms:Decrypt"))
        self.kms.put_key_policy(KeyId=key, PolicyName="default", Policy=document)
        self.assertEqual(self.kms.get_key_policy(KeyId=key)["Policy"], document)

    def test_who_is_not_named_is_refused_and_told_the_permission(self):
        key = self.key()
        blob = self.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        self.denied("kms:Encrypt", self.alice.encrypt, KeyId=key, Plaintext=b"x")
        self.denied("kms:Decrypt", self.alice.decrypt, CiphertextBlob=blob)
        self.denied("kms:DescribeKey", self.alice.describe_key, KeyId=key)
        self.denied("kms:DisableKey", self.alice.disable_key, KeyId=key)
        self.denied("kms:ScheduleKeyDeletion", self.alice.schedule_key_deletion, KeyId=key)
        self.denied("kms:CreateGrant", self.alice.create_grant, KeyId=key, GranteePrincipal=ALICE,
                    Operations=["Decrypt"])
        self.denied("kms:PutKeyPolicy", self.alice.put_key_policy, KeyId=key, Policy=policy())

    def test_who_is_named_may_do_that_and_nothing_else(self):
        key = self.key(Policy=policy(allow(ALICE, "kms:Encrypt", "kms:GenerateDataKey*")))
        blob = self.alice.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        self.alice.generate_data_key(KeyId=key, KeySpec="AES_256")
        self.alice.generate_data_key_without_plaintext(KeyId=key, KeySpec="AES_256")
        self.denied("kms:Decrypt", self.alice.decrypt, CiphertextBlob=blob)
        self.denied("kms:Encrypt", self.bob.encrypt, KeyId=key, Plaintext=b"x")

    def test_an_explicit_deny_wins(self):
        deny = {**allow(ALICE, "kms:Decrypt"), "Effect": "Deny"}
        key = self.key(Policy=policy(allow(ALICE, "kms:*"), deny))
        blob = self.alice.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        self.denied("kms:Decrypt", self.alice.decrypt, CiphertextBlob=blob)
        self.kms.create_grant(KeyId=key, GranteePrincipal=ALICE, Operations=["Decrypt"])
        self.denied("kms:Decrypt", self.alice.decrypt, CiphertextBlob=blob)

    def test_conditions_look_at_the_encryption_context(self):
        condition = {"StringEquals": {"kms:EncryptionContext:dept": "books"}}
        key = self.key(Policy=policy(allow(ALICE, "kms:Encrypt", Condition=condition)))
        self.alice.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"dept": "books"})
        self.denied("kms:Encrypt", self.alice.encrypt, KeyId=key, Plaintext=b"x")
        self.denied("kms:Encrypt", self.alice.encrypt, KeyId=key, Plaintext=b"x",
                    EncryptionContext={"dept": "sales"})

    def test_policies_of_no_form_and_those_that_lock_out_are_refused(self):
        key = self.key()
        for document in ("{", "[]", '{"Statement": 1}', json.dumps({"Version": "1999-01-01",
                         "Statement": [allow(ALICE, "kms:*")]}),
                         policy({"Effect": "Perhaps", "Principal": "*", "Action": "kms:*",
                                 "Resource": "*"})):
            self.fails("MalformedPolicyDocumentException", self.kms.put_key_policy, KeyId=key,
                       Policy=document)
        locked = json.dumps({"Version": "2012-10-17", "Statement": [allow(ALICE, "kms:Encrypt")]})
        self.fails("MalformedPolicyDocumentException", self.kms.put_key_policy, KeyId=key,
                   Policy=locked)
        self.kms.put_key_policy(KeyId=key, Policy=locked, BypassPolicyLockoutSafetyCheck=True)
        self.denied("kms:DescribeKey", self.kms.describe_key, KeyId=key)

    def test_a_policy_has_at_most_32_kib(self):
        big = policy(*[{**allow(ALICE, "kms:Decrypt"), "Sid": f"s{number}" + "x" * 90}
                       for number in range(200)])
        self.assertGreater(len(big), 32 * 1024)
        self.fails("LimitExceededException", self.kms.put_key_policy, KeyId=self.key(), Policy=big)


class Grants(AccessTest):
    def test_a_grant_lets_somebody_do_what_it_lists_until_it_is_revoked(self):
        key = self.key()
        blob = self.kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
        made = self.kms.create_grant(KeyId=key, GranteePrincipal=ALICE, Operations=["Decrypt"])
        self.assertRegex(made["GrantId"], "^[0-9a-f]{64}$")
        self.assertEqual(self.alice.decrypt(CiphertextBlob=blob)["Plaintext"], b"x")
        self.denied("kms:Encrypt", self.alice.encrypt, KeyId=key, Plaintext=b"x")
        self.denied("kms:Decrypt", self.bob.decrypt, CiphertextBlob=blob)
        self.kms.revoke_grant(KeyId=key, GrantId=made["GrantId"])
        self.denied("kms:Decrypt", self.alice.decrypt, CiphertextBlob=blob)

    def test_grants_are_listed_with_all_they_say(self):
        key = self.key()
        made = self.kms.create_grant(
            KeyId=key, GranteePrincipal=ALICE, RetiringPrincipal=BOB, Name="backup",
            Operations=["Decrypt", "DescribeKey"],
            Constraints={"EncryptionContextSubset": {"dept": "books"}})
        [entry] = self.kms.list_grants(KeyId=key)["Grants"]
        entry.pop("CreationDate")
        self.assertEqual(entry, {
            "KeyId": arn(key), "GrantId": made["GrantId"], "Name": "backup", "GranteePrincipal": ALICE,
            "RetiringPrincipal": BOB, "IssuingAccount": f"{ACCOUNT}root",
            "Operations": ["Decrypt", "DescribeKey"],
            "Constraints": {"EncryptionContextSubset": {"dept": "books"}}})
        self.kms.create_grant(KeyId=key, GranteePrincipal=BOB, Operations=["Encrypt"])
        self.assertEqual(len(self.kms.list_grants(KeyId=key, GranteePrincipal=BOB)["Grants"]), 1)
        self.assertEqual(len(self.kms.list_grants(KeyId=key, GrantId=made["GrantId"])["Grants"]), 1)
        page = self.kms.list_grants(KeyId=key, Limit=1)
        self.assertTrue(page["Truncated"])
        rest = self.kms.list_grants(KeyId=key, Limit=1, Marker=page["NextMarker"])
        self.assertFalse(rest["Truncated"])
        retirable = self.kms.list_retirable_grants(RetiringPrincipal=BOB)["Grants"]
        self.assertIn(made["GrantId"], [grant["GrantId"] for grant in retirable])

    def test_the_same_name_gives_the_same_grant(self):
        key = self.key()
        request = {"KeyId": key, "GranteePrincipal": ALICE, "Operations": ["Decrypt"], "Name": "once"}
        first, second = (self.kms.create_grant(**request) for _ in range(2))
        self.assertEqual(first["GrantId"], second["GrantId"])
        self.assertEqual(len(self.kms.list_grants(KeyId=key)["Grants"]), 1)

    def test_constraints_look_at_the_whole_context_or_a_part_of_it(self):
        key = self.key()
        whole, more = {"a": "1"}, {"a": "1", "b": "2"}
        blobs = [self.kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext=context)["CiphertextBlob"]
                 for context in (whole, more)]
        equals = self.kms.create_grant(KeyId=key, GranteePrincipal=ALICE, Operations=["Decrypt"],
                                       Constraints={"EncryptionContextEquals": whole})
        self.alice.decrypt(CiphertextBlob=blobs[0], EncryptionContext=whole)
        self.denied("kms:Decrypt", self.alice.decrypt, CiphertextBlob=blobs[1], EncryptionContext=more)
        self.kms.revoke_grant(KeyId=key, GrantId=equals["GrantId"])
        self.kms.create_grant(KeyId=key, GranteePrincipal=ALICE, Operations=["Decrypt"],
                              Constraints={"EncryptionContextSubset": whole})
        for blob, context in zip(blobs, (whole, more)):
            self.alice.decrypt(CiphertextBlob=blob, EncryptionContext=context)

    def test_grants_are_retired_by_token_and_by_id(self):
        key = self.key()
        make = lambda: self.kms.create_grant(KeyId=key, GranteePrincipal=ALICE, RetiringPrincipal=BOB,
                                             Operations=["Decrypt"])
        self.bob.retire_grant(GrantToken=make()["GrantToken"])
        self.bob.retire_grant(KeyId=arn(key), GrantId=make()["GrantId"])
        self.assertEqual(self.kms.list_grants(KeyId=key)["Grants"], [])
        left = make()
        with self.assertRaises(self.alice.exceptions.ClientError):
            self.alice.retire_grant(GrantToken=left["GrantToken"])
        self.assertEqual(len(self.kms.list_grants(KeyId=key)["Grants"]), 1)

    def test_tokens_go_with_requests_and_nonsense_is_refused(self):
        key = self.key()
        made = self.kms.create_grant(KeyId=key, GranteePrincipal=ALICE, Operations=["Encrypt"])
        self.alice.encrypt(KeyId=key, Plaintext=b"x", GrantTokens=[made["GrantToken"]])
        self.fails("InvalidGrantTokenException", self.kms.encrypt, KeyId=key, Plaintext=b"x",
                   GrantTokens=["nonsense"])
        self.fails("ValidationException", self.kms.encrypt, KeyId=key, Plaintext=b"x",
                   GrantTokens=["x"] * 11)

    def test_grants_that_are_not_there_are_refused(self):
        key = self.key()
        self.fails("NotFoundException", self.kms.revoke_grant, KeyId=key, GrantId="0" * 64)
        self.fails("InvalidGrantIdException", self.kms.revoke_grant, KeyId=key, GrantId="nonsense")
        self.fails("NotFoundException", self.kms.create_grant, KeyId=ABSENT_KEY, GranteePrincipal=ALICE,
                   Operations=["Decrypt"])
        self.fails("ValidationException", self.kms.create_grant,
                   KeyId=key, GranteePrincipal=ALICE, Operations=["Nothing"])


if __name__ == "__main__":
    unittest.main()
