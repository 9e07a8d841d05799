//! Who may do what: policies, grants, principals, access keys.

pub(in crate::cli) mod access_key;
pub(in crate::cli) mod grant;
pub(in crate::cli) mod key_policy;
pub(in crate::cli) mod principal;
pub(in crate::cli) mod who;
