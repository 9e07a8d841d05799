"""Multi-Region keys: one key in two keystores. And key stores, of which there are none."""

import json
import unittest

from common import KmsTest, REGIONS, arn, client

HERE, THERE = REGIONS


class MultiRegion(KmsTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.there = client(region=THERE)

    def primary(self, **request):
        return self.kms.create_key(MultiRegion=True, **request)["KeyMetadata"]

    def test_a_multi_region_key_has_its_own_form_of_id(self):
        made = self.primary()
        self.assertRegex(made["KeyId"], "^mrk-[0-9a-f]{32}$")
        self.assertTrue(made["MultiRegion"])
        self.assertEqual(made["MultiRegionConfiguration"], {
            "MultiRegionKeyType": "PRIMARY",
            "PrimaryKey": {"Arn": arn(made["KeyId"]), "Region": HERE}, "ReplicaKeys": []})

    def test_a_replica_opens_what_its_primary_encrypted(self):
        key = self.primary()["KeyId"]
        blob = self.kms.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext={"a": "b"})
        self.fails("NotFoundException", self.there.describe_key, KeyId=key)
        made = self.kms.replicate_key(KeyId=key, ReplicaRegion=THERE, Description="there",
                                      Tags=[{"TagKey": "a", "TagValue": "b"}])
        replica = made["ReplicaKeyMetadata"]
        self.assertEqual((replica["KeyId"], replica["Arn"]), (key, arn(key, THERE)))
        self.assertEqual(replica["Description"], "there")
        self.assertEqual(made["ReplicaTags"], [{"TagKey": "a", "TagValue": "b"}])
        configuration = {"PrimaryKey": {"Arn": arn(key), "Region": HERE},
                         "ReplicaKeys": [{"Arn": arn(key, THERE), "Region": THERE}]}
        for kms, kind in ((self.kms, "PRIMARY"), (self.there, "REPLICA")):
            found = kms.describe_key(KeyId=key)["KeyMetadata"]["MultiRegionConfiguration"]
            self.assertEqual(found, {"MultiRegionKeyType": kind, **configuration})
        opened = self.there.decrypt(CiphertextBlob=blob["CiphertextBlob"], EncryptionContext={"a": "b"})
        self.assertEqual((opened["Plaintext"], opened["KeyId"]), (b"x", arn(key, THERE)))
        back = self.there.encrypt(KeyId=key, Plaintext=b"y")["CiphertextBlob"]
        self.assertEqual(self.kms.decrypt(CiphertextBlob=back)["Plaintext"], b"y")

    def test_what_cannot_be_replicated_is_refused(self):
        key = self.primary()["KeyId"]
        self.kms.replicate_key(KeyId=key, ReplicaRegion=THERE)
        self.fails("AlreadyExistsException", self.kms.replicate_key, KeyId=key, ReplicaRegion=THERE)
        self.fails("UnsupportedOperationException", self.kms.replicate_key, KeyId=self.key(),
                   ReplicaRegion=THERE)
        self.fails("AlreadyExistsException", self.there.replicate_key, KeyId=key, ReplicaRegion=HERE)

    def test_regression_a_policy_that_is_refused_leaves_no_replica(self):
        """It was set when the replica was there already, with the default policy."""
        key = self.primary()["KeyId"]
        statement = {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}

        def policy(user):
            principal = {"AWS": "arn:aws:iam::000000000000:" + user}
            return json.dumps({"Version": "2012-10-17",
                               "Statement": [{**statement, "Principal": principal}]})

        for refused in ("{}", policy("user/somebody-else")):
            self.fails("MalformedPolicyDocumentException", self.kms.replicate_key, KeyId=key,
                       ReplicaRegion=THERE, Policy=refused)
            self.fails("NotFoundException", self.there.describe_key, KeyId=key)
            shown = self.kms.describe_key(KeyId=key)["KeyMetadata"]
            self.assertEqual(shown["MultiRegionConfiguration"]["ReplicaKeys"], [])
        made = self.kms.replicate_key(KeyId=key, ReplicaRegion=THERE, Policy=policy("root"))
        self.assertEqual(made["ReplicaPolicy"], policy("root"))
        self.assertEqual(self.there.get_key_policy(KeyId=key)["Policy"], policy("root"))

    def test_the_primary_moves(self):
        key = self.primary()["KeyId"]
        self.kms.replicate_key(KeyId=key, ReplicaRegion=THERE)
        self.kms.update_primary_region(KeyId=key, PrimaryRegion=THERE)
        for kms, kind in ((self.kms, "REPLICA"), (self.there, "PRIMARY")):
            found = kms.describe_key(KeyId=key)["KeyMetadata"]["MultiRegionConfiguration"]
            self.assertEqual((found["MultiRegionKeyType"], found["PrimaryKey"]["Region"]),
                             (kind, THERE))

    def test_a_primary_waits_for_the_deletion_of_its_replicas(self):
        key = self.primary()["KeyId"]
        self.kms.replicate_key(KeyId=key, ReplicaRegion=THERE)
        done = self.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
        self.assertEqual(done["KeyState"], "PendingReplicaDeletion")
        self.assertNotIn("DeletionDate", done)
        self.kms.cancel_key_deletion(KeyId=key)


class KeyStores(KmsTest):
    def test_there_are_none_at_first(self):
        found = self.kms.describe_custom_key_stores()
        self.assertEqual((found["CustomKeyStores"], found["Truncated"]), ([], False))

    def test_stores_that_are_not_there_are_refused(self):
        absent = "cks-1234567890abcdef0"
        for call in (self.kms.connect_custom_key_store, self.kms.disconnect_custom_key_store,
                     self.kms.delete_custom_key_store, self.kms.update_custom_key_store,
                     self.kms.describe_custom_key_stores):
            self.fails("CustomKeyStoreNotFoundException", call, CustomKeyStoreId=absent)
        self.fails("CustomKeyStoreNotFoundException", self.kms.create_key, Origin="AWS_CLOUDHSM",
                   CustomKeyStoreId=absent)

    def test_external_stores_are_unsupported(self):
        self.fails("UnsupportedOperationException", self.kms.create_custom_key_store,
                   CustomKeyStoreName="xks", CustomKeyStoreType="EXTERNAL_KEY_STORE",
                   XksProxyUriEndpoint="https://xks.example.com", XksProxyUriPath="/kms/xks/v1",
                   XksProxyAuthenticationCredential={"AccessKeyId": "ABCDEFGHIJKLMNOPQRST",
                                                     "RawSecretAccessKey": "x" * 43},
                   XksProxyConnectivity="PUBLIC_ENDPOINT")


if __name__ == "__main__":
    unittest.main()
