//! How processors of this machine sleep, and what keeps them from it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The device that forbids processors to sleep.
pub(in crate::cli) const DEVICE: &str = "/dev/cpu_dma_latency";

/// An open [`DEVICE`]. Asks for nothing until it is told to, and for nothing any more once it is closed.
#[derive(Debug)]
pub(in crate::cli) struct Latency(File);

impl Latency {
    /// # Errors
    /// Those of `open(2)`: the device is root's where no rule gives it to others.
    pub(in crate::cli) fn open() -> io::Result<Self> {
        File::options().write(true).open(DEVICE).map(Self)
    }

    /// Has no processor sleep from now on: those without work turn in a circle.
    ///
    /// # Errors
    /// Those of `write(2)`.
    pub(in crate::cli) fn forbid_sleep(&self) -> io::Result<()> {
        self.ask(0)
    }

    /// Lets them sleep again.
    ///
    /// # Errors
    /// Those of `write(2)`.
    pub(in crate::cli) fn allow_sleep(&self) -> io::Result<()> {
        self.ask(ANY)
    }

    /// *Units*: microseconds that a processor may take to wake.
    #[expect(clippy::host_endian_bytes, reason = "the kernel of this machine reads them")]
    fn ask(&self, latency: i32) -> io::Result<()> {
        (&self.0).write_all(&latency.to_ne_bytes())
    }
}

/// Whether this machine draws on a battery of its own.
#[derive(Debug)]
pub(in crate::cli) struct Power {
    /// What each battery does. Open, as the directory is out of a confined daemon's reach.
    states: Vec<File>,
}

impl Power {
    /// The batteries of this machine.
    pub(in crate::cli) fn of_this_machine() -> Self {
        Self::of(Path::new("/sys/class/power_supply"))
    }

    /// Those of mice and other devices do not count. What cannot be read is none.
    fn of(supplies: &Path) -> Self {
        let batteries = fs::read_dir(supplies).into_iter().flatten().flatten().filter(|supply| {
            let says = |name: &str| line(&supply.path().join(name)).unwrap_or_default();
            says("type") == "Battery" && says("scope") != "Device"
        });
        let states = batteries.filter_map(|battery| File::open(battery.path().join("status")).ok());
        Self { states: states.collect() }
    }

    /// True if one is being emptied.
    pub(in crate::cli) fn is_on_battery(&self) -> bool {
        self.states.iter().any(|state| {
            let mut said = [0; DISCHARGING.len()];
            state.read_exact_at(&mut said, 0).is_ok() && said == DISCHARGING
        })
    }
}

/// The driver that puts processors to sleep, and heeds [`DEVICE`]; none if the kernel does it without.
pub(in crate::cli) fn idle_driver() -> Option<String> {
    let name = line(Path::new("/sys/devices/system/cpu/cpuidle/current_driver"));
    name.filter(|name| name != "none")
}

/// How long the `haltpoll` driver waits before it lets a processor of a virtual machine sleep.
/// *Units*: nanoseconds.
pub(in crate::cli) fn guest_halt_poll() -> Option<u64> {
    line(Path::new("/sys/module/haltpoll/parameters/guest_halt_poll_ns"))?.parse().ok()
}

/// True in a virtual machine whose processors say so.
pub(in crate::cli) fn is_virtual() -> bool {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "hypervisor")
}

fn line(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// What the kernel takes for no wish at all (`PM_QOS_CPU_LATENCY_DEFAULT_VALUE`).
const ANY: i32 = 2_000_000_000;
const DISCHARGING: [u8; 11] = *b"Discharging";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_battery_of_the_machine_that_is_emptied_counts() {
        let dir = std::env::temp_dir().join(format!("kmsfs-power-{}", std::process::id()));
        let supply = |name: &str, lines: &[(&str, &str)]| {
            fs::create_dir_all(dir.join(name)).unwrap();
            for (file, text) in lines {
                fs::write(dir.join(name).join(file), format!("{text}\n")).unwrap();
            }
        };
        assert!(!Power::of(&dir).is_on_battery(), "there is no such directory");
        supply("AC", &[("type", "Mains"), ("online", "0")]);
        supply("mouse", &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")]);
        supply("BAT0", &[("type", "Battery"), ("status", "Not charging")]);
        let power = Power::of(&dir);
        assert!(!power.is_on_battery());
        supply("BAT0", &[("status", "Discharging")]);
        assert!(power.is_on_battery(), "it is asked anew");
        supply("BAT0", &[("status", "Full")]);
        assert!(!power.is_on_battery());
        fs::remove_dir_all(&dir).unwrap();
    }

    /// The kernel reads four bytes in its own order, or text.
    #[test]
    fn a_wish_is_four_bytes() {
        let path = std::env::temp_dir().join(format!("kmsfs-latency-{}", std::process::id()));
        let device = Latency(File::create(&path).unwrap());
        device.forbid_sleep().unwrap();
        device.allow_sleep().unwrap();
        let wishes = fs::read(&path).unwrap();
        let (none, any) = wishes.split_at(4);
        let any = if cfg!(target_endian = "big") {
            any.to_vec()
        } else {
            any.iter().rev().copied().collect()
        };
        assert_eq!((none, any), (&[0; 4][..], 2_000_000_000_u32.to_be_bytes().to_vec()));
        fs::remove_file(&path).unwrap();
    }
}
