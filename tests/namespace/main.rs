//! The namespace of a volume without a kernel: names, directories, attributes and what a hostile
//! or unlucky vault does to them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod above;
mod attributes;
mod audited;
mod checks;
mod contents;
mod crossing;
mod directories;
mod disks;
mod first_keys;
mod fixture;
mod full;
mod hostile;
mod idle;
mod interrupted;
mod journaled;
mod lengths;
mod links;
mod listing;
mod locks;
mod moves;
mod names;
mod numbers;
mod permissions;
mod places;
mod power;
mod races;
mod recovery;
mod removal;
mod revocation;
mod sessions;
mod sick;
mod sizes;
mod strays;
mod taken;
mod times;
mod unsynced;
mod untouched;
mod upkeep;
mod volume_key;
mod withheld;
