//! The check of `kmsfs doctor` that is about time: what processors that sleep cost the mounts here.

use serde::Serialize;

use super::findings::{Findings, Severity};
use crate::cli::daemon::awake;
use crate::cli::env::processors::{self, Latency};

/// What decides about it.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Processors {
    /// The driver that puts processors to sleep.
    cpuidle_driver: Option<String>,
    /// Why this user cannot open the device; none if it can be opened.
    latency_device: Option<String>,
    /// What a mount of this user does about it.
    keeps_processors_awake: String,
    /// *Units*: nanoseconds.
    guest_halt_poll_ns: Option<u64>,
    virtual_machine: bool,
}

impl Processors {
    /// Those of this machine.
    pub(in crate::cli) fn of_this_machine() -> Self {
        let expected = awake::expected();
        Self {
            cpuidle_driver: processors::idle_driver(),
            latency_device: Latency::open().err().map(|error| error.to_string()),
            keeps_processors_awake: match expected {
                Ok(when) => when.to_owned(),
                Err(obstacle) => format!("no: {obstacle}"),
            },
            guest_halt_poll_ns: processors::guest_halt_poll(),
            virtual_machine: processors::is_virtual(),
        }
    }

    /// Says what slows mounts down and can be changed.
    pub(in crate::cli) fn check(&self, findings: &mut Findings) {
        if let Some((what, advice)) = self.finding() {
            findings.add(Severity::Note, "processors", what, advice);
        }
    }

    fn finding(&self) -> Option<(String, String)> {
        if self.cpuidle_driver.is_none() {
            return self.virtual_machine.then(|| (UNHEEDED.to_owned(), BOOT.to_owned()));
        }
        let why = self.latency_device.as_ref()?;
        let polls = if self.guest_halt_poll_ns == Some(0) { POLL } else { "" };
        let what = format!(
            "mounts of this user let processors sleep between two requests, which can take longer \
             than answering one: {}: {why}",
            processors::DEVICE
        );
        Some((what, format!("{RULE}{polls}")))
    }
}

const UNHEEDED: &str = "no cpuidle driver: processors of this virtual machine may take longer to wake \
                        than a request takes to answer, and -o keep-awake has no effect";
const BOOT: &str = "cpuidle_haltpoll.force=1 among the kernel's parameters gives it one, if the kernel \
                    has it (CONFIG_HALTPOLL_CPUIDLE)";
const RULE: &str = "let this user's group open it: systemd/60-kmsfs-latency.rules";
const POLL: &str = "; in this virtual machine, 200000 in \
                    /sys/module/haltpoll/parameters/guest_halt_poll_ns does the same for all programs";

#[cfg(test)]
mod tests {
    use super::*;

    fn fast() -> Processors {
        Processors {
            cpuidle_driver: Some("haltpoll".into()),
            latency_device: None,
            keeps_processors_awake: String::new(),
            guest_halt_poll_ns: Some(0),
            virtual_machine: true,
        }
    }

    #[test]
    fn a_machine_on_which_nothing_is_to_be_gained_is_not_named() {
        assert_eq!(fast().finding(), None);
        let metal = Processors { virtual_machine: false, cpuidle_driver: None, ..fast() };
        assert_eq!(metal.finding(), None);
    }

    #[test]
    fn a_device_that_is_closed_to_the_user_is_named_with_its_rule() {
        let closed = Processors { latency_device: Some("Permission denied".into()), ..fast() };
        let (what, advice) = closed.finding().unwrap();
        assert!(what.ends_with("/dev/cpu_dma_latency: Permission denied"), "{what}");
        assert!(advice.contains("60-kmsfs-latency.rules") && advice.contains("200000"), "{advice}");
        let (_, advice) = Processors { guest_halt_poll_ns: None, ..closed }.finding().unwrap();
        assert!(!advice.contains("guest_halt_poll_ns"), "{advice}");
    }

    #[test]
    fn the_rule_that_is_named_is_about_the_device() {
        let rule = include_str!("../../../../systemd/60-kmsfs-latency.rules");
        let name = processors::DEVICE.strip_prefix("/dev/").unwrap();
        let line = rule.lines().find(|line| !line.starts_with('#')).unwrap();
        assert!(line.starts_with(&format!("KERNEL==\"{name}\", SUBSYSTEM==\"misc\", ")), "{line}");
        let unit = include_str!("../../../../systemd/kmsfs@.service");
        assert!(unit.contains(&format!("\nDeviceAllow={} w\n", processors::DEVICE)));
    }

    #[test]
    fn a_virtual_machine_without_a_driver_is_told_how_to_get_one() {
        let (_, advice) = Processors { cpuidle_driver: None, ..fast() }.finding().unwrap();
        assert!(advice.contains("cpuidle_haltpoll.force=1"), "{advice}");
    }
}
