//! May a caller do this? The first step of every operation.
//!
//! The order is that of AWS's "Policy evaluation logic": the key policy, the account's policies for the
//! caller and its groups, the key's grants. An explicit deny in a policy wins. A key policy that allows
//! the account leaves the decision about others than its root to the account's policies. The account's
//! policies alone decide about requests that concern no key.

pub(in crate::keystore) mod decision;
pub(in crate::keystore) mod lockout;
pub(in crate::keystore) mod request;
pub(in crate::keystore) mod rules;
pub(in crate::keystore) mod table;

pub(in crate::keystore) use decision::{authorise, authorise_alias};
