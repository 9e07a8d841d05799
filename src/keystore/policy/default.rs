//! The policy of keys that were given none.

/// The only name that a key policy has.
pub const DEFAULT_POLICY_NAME: &str = "default";

/// The policy of a key that was given none: the root of the account may do everything and leave
/// it to the account's policies who else may; and whoever gets at a file through a mount may use
/// the key for it, because there the file's owner and mode decide.
pub fn default_key_policy() -> &'static str {
    DEFAULT
}

pub(in crate::keystore) const DEFAULT: &str = r#"{
  "Version": "2012-10-17",
  "Id": "key-default-1",
  "Statement": [
    {
      "Sid": "Enable IAM User Permissions",
      "Effect": "Allow",
      "Principal": { "AWS": "arn:aws:iam::000000000000:root" },
      "Action": "kms:*",
      "Resource": "*"
    },
    {
      "Sid": "Allow use through a mounted volume",
      "Effect": "Allow",
      "Principal": { "AWS": "*" },
      "Action": [
        "kms:Decrypt",
        "kms:GenerateDataKey*",
        "kms:ReEncrypt*",
        "kms:DescribeKey"
      ],
      "Resource": "*",
      "Condition": { "StringEquals": { "kms:ViaService": "kmsfs" } }
    }
  ]
}"#;

#[cfg(test)]
mod tests {
    use super::super::{Kind, Policy};
    use super::*;

    #[test]
    fn the_default_policy_parses_and_gives_nobody_everything() {
        let policy = Policy::parse(default_key_policy(), Kind::Key).unwrap();
        assert_eq!(policy.allows_everything(), None);
    }
}
