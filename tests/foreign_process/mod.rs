//! Processes in user namespaces of their own, as users make them with newuidmap(1) and newgidmap(1).

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

/// A user who makes a namespace, and what the programs with the rights to do so give them there.
pub(crate) struct ForeignUser<'a> {
    pub(crate) uid: u32,
    pub(crate) groups: &'a [u32],
    /// Lines of `/proc/PID/uid_map` and `gid_map`.
    pub(crate) map: &'a str,
    /// Whom they become, by the numbers in there: without any group.
    pub(crate) becomes: u32,
}

impl ForeignUser<'_> {
    /// Runs a program in the namespace. Takes root.
    pub(crate) fn output(&self, words: &[&str]) -> Output {
        let script = r#"echo made && read go && exec "$@""#;
        let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
        let mut process = Command::new("setpriv")
            .args([format!("--reuid={}", self.uid), format!("--regid={}", self.uid)])
            .arg(format!("--groups={}", groups.join(",")))
            .args(["unshare", "--user", "--keep-caps", "sh", "-c", script, "sh", "setpriv"])
            .args([format!("--reuid={}", self.becomes), format!("--regid={}", self.becomes)])
            .arg("--clear-groups")
            .args(words)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut made = [0; 5];
        process.stdout.as_mut().unwrap().read_exact(&mut made).unwrap();
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", process.id()), self.map).unwrap();
        }
        process.stdin.take().unwrap().write_all(b"\n").unwrap();
        process.wait_with_output().unwrap()
    }
}
