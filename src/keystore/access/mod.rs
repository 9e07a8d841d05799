//! May a caller do this? The first step of every operation.
//!
//! In the order of AWS's "Policy evaluation logic", these are asked: the key policy, the account's
//! policies for the caller and its groups, the key's grants. An explicit deny in a policy wins.
//! A key policy that allows the account leaves the decision about others than its root to the
//! account's policies. What is about no key is decided by the account's policies alone.

pub(in crate::keystore) mod decision;
pub(in crate::keystore) mod lockout;
pub(in crate::keystore) mod request;
pub(in crate::keystore) mod rules;
pub(in crate::keystore) mod table;

pub(in crate::keystore) use decision::{authorise, authorise_alias};
