//! Failures that the enumeration found, by name: each with every cut, clean and torn.

use crate::check::Cut;
use crate::ops::Op::{self, Append, Extend, Punch, Reopen, Shrink, Sync, Truncate, Write, Zero};
use crate::{Tally, start};

fn all_cuts(setup: &[Op], ops: &[Op]) {
    for cut in [Cut::Clean, Cut::Torn] {
        let (image, model) = start("regression", setup);
        let mut tally = Tally::default();
        tally.workload("regression", &image, &model, ops, cut);
        tally.finish("regression");
    }
}

/// Residue of a crash was sealed, and then taken for tampering.
#[test]
fn regression_residue_is_mended_before_a_seal() {
    all_cuts(&[], &[Append(10), Append(5000)]);
}

/// The size was taken from the last page, and when that one was torn the file did not open.
#[test]
fn regression_a_torn_last_page_does_not_close_the_file() {
    all_cuts(&[Append(100)], &[Append(10), Append(1500)]);
}

/// A first spill page that was torn made the payloads of its group unreadable.
#[test]
fn regression_a_torn_first_spill_page_leaves_the_payloads() {
    all_cuts(&[], &[Extend(100_000), Shrink(1), Sync]);
}

/// The entry of a tail that was cut off came back as the end of the block.
#[test]
fn regression_a_cut_at_the_payload_forgets_the_tail() {
    all_cuts(&[Append(8192)], &[Truncate(8148), Sync, Append(10)]);
}

/// A hole that was being filled when the power went could not be read any more.
#[test]
fn regression_a_half_filled_hole_is_still_a_hole() {
    all_cuts(&[Write(2900, 1300), Punch(0, 9000)], &[Zero(3000, 3000)]);
}

/// "Hole" was durable before the size was, and the file lost its last bytes.
#[test]
fn regression_a_punch_waits_for_the_size() {
    all_cuts(&[Append(8150)], &[Extend(100_000), Punch(0, 9000)]);
}

/// A cut ended the file in a hole, or in a block that a crash had left short.
#[test]
fn regression_a_cut_makes_an_end() {
    all_cuts(&[Append(20480), Punch(4096, 8192)], &[Truncate(8192)]);
    all_cuts(&[Append(3029)], &[Write(4050, 4100), Truncate(8148), Reopen]);
}
