//! The benchmark, run for a moment: that it still runs, and takes everything away again.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Sandbox, binary, is_root, program};

/// `benches/compare` on this build, in a directory of its own, with little to do.
fn compare(directory: &Path, rounds: &str, workloads: &str) -> Command {
    assert!(is_root(), "the benchmark mounts and drops caches, which takes root");
    let mut command = Command::new(program("python3"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/compare"));
    command.args(["--scale", "tiny", "--latency", "as-is", "--rounds", rounds]);
    command.args(["--workloads", workloads, "--directory"]).arg(directory);
    command.env("KMSFS_BIN", binary());
    let floor = floor();
    let peers = if floor.exists() { "bare,null,passthrough,kmsfs" } else { "bare,kmsfs" };
    command.args(["--peers", peers]).env("FLOOR_BIN", floor);
    command
}

/// Where `cargo test` and `cargo build --example floor` put it.
fn floor() -> PathBuf {
    let suite = std::env::current_exe().unwrap();
    suite.ancestors().nth(2).unwrap().join("examples/floor")
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn the_benchmark_measures_and_leaves_nothing() {
    let sandbox = Sandbox::new("compare");
    let [work, charts] = [sandbox.dir("work"), sandbox.path("charts")];
    let [samples, tables] = ["samples.json", "tables.md"].map(|name| sandbox.path(name));
    let output = compare(&work, "1", "read-again,create,maildir")
        .arg("--json")
        .arg(&samples)
        .arg("--markdown")
        .arg(&tables)
        .arg("--charts")
        .arg(&charts)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}{errors}", output.status);
    assert!(is_empty(&work), "something is left");

    let samples: Value = serde_json::from_slice(&fs::read(samples).unwrap()).unwrap();
    let tables = fs::read_to_string(tables).unwrap();
    for workload in ["read-again (MiB/s)", "create (files/s)", "maildir (mails/s)"] {
        assert!(said.contains(&format!("\n{workload}")), "{workload} in:\n{said}{errors}");
        assert!(tables.contains(&format!("\n| {workload} |")), "{workload} in:\n{tables}");
        let measured = samples["samples"].as_array().unwrap().iter().find(|sample| {
            let name = sample["workload"].as_str().unwrap();
            workload.starts_with(name) && sample["peer"] == "kmsfs" && sample["round"] == 1
        });
        let measured = measured.unwrap_or_else(|| panic!("{workload} in:\n{samples}"));
        assert!(measured["seconds"].as_f64().unwrap() > 0.0, "{measured}");
        assert!(measured["memory"].as_u64().unwrap() > 0, "{measured}");
    }
    for chart in ["in-a-row-as-is.svg", "small-files-as-is.svg", "programs-as-is.svg"] {
        let drawn = fs::read_to_string(charts.join(chart)).unwrap();
        assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n"), "{chart}:\n{drawn}");
    }
}

#[test]
fn an_interrupted_benchmark_leaves_nothing() {
    let sandbox = Sandbox::new("interrupted");
    let work = sandbox.dir("work");
    let mut child =
        compare(&work, "100000", "create").stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    let child = child.as_mut().unwrap();
    let said = wait_for(child, "round 1 of");
    let daemons = processes_with(&work);
    assert!(!daemons.is_empty(), "kmsfs runs:\n{said}");
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(is_empty(&work), "something is left:\n{said}");
    assert_eq!(processes_with(&work), Vec::<String>::new(), "daemons are left");
}

/// Reads what a child says until it says that, and returns all of it.
fn wait_for(child: &mut Child, wanted: &str) -> String {
    let mut said = String::new();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    while errors.read_line(&mut said).unwrap() > 0 {
        if said.contains(wanted) {
            // The rest has to be read too, or the child may be killed for saying it.
            std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
            return said;
        }
    }
    panic!("it ended without {wanted:?}:\n{said}");
}

/// The command lines of those processes, but for the benchmark's own, that name a path in `directory`.
fn processes_with(directory: &Path) -> Vec<String> {
    let inside = format!("{}/", directory.display());
    let entries = fs::read_dir("/proc").unwrap();
    let lines = entries.filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&inside)).collect()
}
