//! The namespace of a volume without a kernel: names, directories, attributes and what a hostile
//! or unlucky vault does to them.

mod attributes;
mod directories;
mod fixture;
mod links;
mod listing;
mod names;
mod removal;
