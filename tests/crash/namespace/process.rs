//! The process that has the disk, and the line to it.
//!
//! It is another one than that of the test: a process that ends while it waits for a filesystem of
//! its own would wait for ever.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Lines, Write, stdin};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::io::Errno;

use super::disk::{Fault, Mounted};
use super::tree::Tree;

/// The disk, from outside. When it goes the process ends, and with it what is mounted.
pub(crate) struct Disk {
    line: RefCell<Line>,
    process: Child,
}

struct Line {
    orders: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Disk {
    /// Starts the process, with an empty disk.
    pub(crate) fn new() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", CHILD, "--ignored", "--nocapture"])
            .env(CHILD_OF, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        let orders = process.stdin.take();
        Self { line: RefCell::new(Line { orders, answers }), process }
    }

    /// Mounts the disk as it was when it was last kept.
    pub(crate) fn mount(&self, dir: &Path) {
        self.order(&format!("mount {}", dir.display()));
    }

    pub(crate) fn unmount(&self) {
        self.order("unmount");
    }

    /// Keeps what is on the disk: every mount from now on begins with it.
    pub(crate) fn keep(&self) {
        self.order("keep");
    }

    /// Lets the n-th call from now on fail, of those that can fail that way.
    pub(crate) fn fail(&self, n: usize, fault: Fault) {
        let (how, error) = match fault {
            Fault::Once(error) => ("once", error),
            Fault::Late(error) => ("late", error),
            Fault::Lasting(error) => ("lasting", error),
            Fault::Short => ("short", Errno::IO),
        };
        self.order(&format!("fail {n} {how} {}", error.raw_os_error()));
    }

    /// No more faults. Returns which call the last one met.
    pub(crate) fn heal(&self) -> Option<String> {
        Some(self.order("heal")).filter(|met| !met.is_empty())
    }

    fn order(&self, order: &str) -> String {
        let mut line = self.line.borrow_mut();
        writeln!(line.orders.as_mut().expect("the line is open"), "{order}").unwrap();
        loop {
            let answer = line.answers.next().expect("the disk's process has ended").unwrap();
            // The test harness writes its own words in front of the first answer.
            if let Some((_, answer)) = answer.split_once(ANSWER) {
                return answer.to_owned();
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.line.get_mut().orders = None;
        let _ = self.process.wait();
    }
}

/// Not a test: the process that has the disk.
#[test]
#[ignore = "started by other tests as a process of its own"]
fn process_of_the_disk() {
    if std::env::var_os(CHILD_OF).is_none() {
        return;
    }
    let mut kept = Tree::new();
    let mut mounted: Option<Mounted> = None;
    for order in stdin().lines() {
        let order = order.unwrap();
        let words: Vec<&str> = order.splitn(4, ' ').collect();
        let mut answer = String::new();
        match (&words[..], &mounted) {
            (["mount", dir], _) => {
                mounted = Some(Mounted::new(kept.clone(), Path::new(dir)).unwrap());
            }
            (["unmount"], _) => mounted = None,
            (["keep"], Some(disk)) => kept = disk.tree(),
            (["fail", n, how, error], Some(disk)) => {
                disk.fail(n.parse().unwrap(), fault(how, error.parse().unwrap()));
            }
            (["heal"], Some(disk)) => {
                answer = disk.heal().map(|call| format!("{call:?}")).unwrap_or_default();
            }
            _ => panic!("{order} is no order that the disk takes now"),
        }
        println!("{ANSWER}{answer}");
    }
}

fn fault(how: &str, error: i32) -> Fault {
    let error = Errno::from_raw_os_error(error);
    match how {
        "once" => Fault::Once(error),
        "late" => Fault::Late(error),
        "lasting" => Fault::Lasting(error),
        _ => Fault::Short,
    }
}

const CHILD: &str = "namespace::process::process_of_the_disk";
const CHILD_OF: &str = "KMSFS_TEST_DISK_OF";
const ANSWER: &str = "the disk: ";
