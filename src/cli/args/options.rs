//! Mount options as fstab(5) and mount(8) write them.

use std::path::PathBuf;

use super::kms_source::KmsArgs;
use crate::cli::report::exit::{CliError, Exit};
use crate::volume::{AccessTimes, PageJournaling};

/// What `-o` asks for. `None` means that nothing was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cli) struct MountOptions {
    /// `ro` or `rw`.
    pub read_only: Option<bool>,
    /// `allow_other`: other users may enter.
    pub allow_other: bool,
    /// `no_default_permissions`: whoever may enter may do what root may.
    pub no_default_permissions: bool,
    /// `noxattr`: no extended attributes, ACLs and capabilities of files.
    pub no_xattrs: bool,
    /// `allow_open_vault`: other users may enter the vault's own directory.
    pub allow_open_vault: bool,
    /// `suid` or `nosuid`.
    pub suid: Option<bool>,
    /// `dev` or `nodev`.
    pub dev: Option<bool>,
    /// `exec` or `noexec`.
    pub exec: Option<bool>,
    /// `noatime`, `relatime`, ...
    pub atime: Option<AccessTimes>,
    /// `sync`, `dirsync`.
    pub sync: Option<Sync>,
    /// `nosymfollow`: links are shown, and not followed.
    pub nosymfollow: bool,
    /// `shared`: other machines may change the backing directory, so the kernel caches little.
    pub shared: bool,
    /// `nfs_export`: file handles are given out.
    pub nfs_export: bool,
    /// `nonempty`: the mountpoint may have entries, which are hidden.
    pub nonempty: bool,
    /// `keystore=FILE`.
    pub keystore: Option<PathBuf>,
    /// `key-file=FILE`.
    pub key_file: Option<PathBuf>,
    /// `kms=URL` and its companions.
    pub kms: KmsArgs,
    /// `token-paths=PATH[:PATH...]`: where PKCS #11 modules may write.
    pub token_paths: Vec<PathBuf>,
    /// `threads=N`.
    pub threads: Option<usize>,
    /// `page-journal=auto|on|off`.
    pub page_journal: PageJournaling,
    /// `keep-awake=auto|on|off`.
    pub keep_awake: KeepAwake,
}

/// Whether processors are kept awake while requests come densely.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cli) enum KeepAwake {
    /// Where that has an effect, and no battery is emptied for it.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Which changes are written at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Sync {
    /// Everything.
    All,
    /// Directories.
    Directories,
}

impl MountOptions {
    /// Reads lists of options; later ones win.
    ///
    /// Errors: `Usage` naming the first option that is not known or has a bad value.
    pub(in crate::cli) fn parse(lists: &[String]) -> Result<Self, CliError> {
        let mut options = Self::default();
        for option in lists.iter().flat_map(|list| list.split(',')).filter(|o| !o.is_empty()) {
            options.apply(option)?;
        }
        Ok(options)
    }

    fn apply(&mut self, option: &str) -> Result<(), CliError> {
        match option.split_once('=') {
            Some((name, value)) => self.apply_value(name, value),
            None => self.apply_flag(option),
        }
    }

    fn apply_flag(&mut self, name: &str) -> Result<(), CliError> {
        match name {
            "ro" => self.read_only = Some(true),
            "rw" => self.read_only = Some(false),
            // mount(8) keeps `suid` and `dev` for itself, as its own defaults.
            "suid" | "allow_suid" => self.suid = Some(true),
            "nosuid" => self.suid = Some(false),
            "dev" | "allow_dev" => self.dev = Some(true),
            "nodev" => self.dev = Some(false),
            "exec" => self.exec = Some(true),
            "noexec" => self.exec = Some(false),
            "noatime" => self.atime = Some(AccessTimes::Never),
            "strictatime" => self.atime = Some(AccessTimes::Strict),
            "atime" | "relatime" => self.atime = Some(AccessTimes::Relative),
            "diratime" | "nodiratime" | "lazytime" | "nolazytime" => {}
            "sync" => self.sync = Some(Sync::All),
            "dirsync" => self.sync = Some(Sync::Directories),
            "async" => self.sync = None,
            "nosymfollow" => self.nosymfollow = true,
            "symfollow" => self.nosymfollow = false,
            "allow_other" => self.allow_other = true,
            "default_permissions" => self.no_default_permissions = false,
            "no_default_permissions" => self.no_default_permissions = true,
            "noxattr" => self.no_xattrs = true,
            "allow_open_vault" => self.allow_open_vault = true,
            "shared" => self.shared = true,
            "nfs_export" => self.nfs_export = true,
            "nonempty" => self.nonempty = true,
            // As mount(8) says: these imply the three restrictions, which later options lift.
            "user" | "users" | "owner" | "group" => {
                self.suid = Some(false);
                self.dev = Some(false);
                self.exec = Some(self.exec.unwrap_or(false));
            }
            _ if IGNORED.contains(&name) || is_foreign(name) => {}
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    fn apply_value(&mut self, name: &str, value: &str) -> Result<(), CliError> {
        match name {
            "keystore" => self.keystore = Some(PathBuf::from(value)),
            "key-file" | "key_file" => self.key_file = Some(PathBuf::from(value)),
            "kms" => self.kms.url = Some(value.to_owned()),
            "kms-credentials" => self.kms.credentials = Some(PathBuf::from(value)),
            "kms-ca" => self.kms.ca = Some(PathBuf::from(value)),
            "kms-region" => self.kms.region = Some(value.to_owned()),
            "kms-grace" => {
                let seconds = value.parse().map_err(|_| bad(name, value, "a number of seconds"));
                self.kms.grace = Some(seconds?);
            }
            "token-paths" => self.token_paths = std::env::split_paths(value).collect(),
            "threads" => {
                let threads = value.parse().ok().filter(|count| (1..=256).contains(count));
                self.threads = Some(threads.ok_or_else(|| bad(name, value, "1 to 256"))?);
            }
            "page-journal" => {
                self.page_journal = match value {
                    "auto" => PageJournaling::Auto,
                    "on" => PageJournaling::On,
                    "off" => PageJournaling::Off,
                    _ => return Err(bad(name, value, "auto, on or off")),
                };
            }
            "keep-awake" => {
                self.keep_awake = match value {
                    "auto" => KeepAwake::Auto,
                    "on" => KeepAwake::On,
                    "off" => KeepAwake::Off,
                    _ => return Err(bad(name, value, "auto, on or off")),
                };
            }
            "subtype" if value == "kmsfs" => {}
            "subtype" => return Err(bad(name, value, "kmsfs")),
            "fsname" => {
                return Err(bad(
                    name,
                    value,
                    "possible: the mount table names the vault, and commands find it there",
                ));
            }
            "comment" | "user" => {}
            _ if is_foreign(name) => {}
            _ => return Err(unknown(name)),
        }
        Ok(())
    }
}

/// What the help of `-o` says.
pub(in crate::cli) const OPTIONS: &str = "Mount options, as in fstab(5)

Besides those of mount(8):
  allow_other                 other users may enter
  allow_suid, allow_dev       suid and dev, where mount(8) or fstab passes the options on
  no_default_permissions      for root, without allow_other: the kernel checks no owners,
                              modes and ACLs, and asks for less
  noxattr                     no extended attributes, ACLs and file capabilities, which
                              saves a request for each new file; not with allow_other
  nfs_export                  file handles that last, for NFS
  allow_open_vault            the vault's own directory may be open to other users
  keystore=FILE, key-file=FILE, kms=URL, kms-credentials=FILE, kms-ca=FILE,
  kms-region=REGION, kms-grace=SECONDS
                              like the options of these names
  token-paths=PATH[:PATH...]  where a PKCS #11 module may write
  page-journal=auto|on|off    copy pages before they are overwritten, for disks that
                              tear them (auto: where blocks are below 4096 bytes)
  keep-awake=auto|on|off      let no processor sleep while many requests come (auto: not
                              on battery, nor where /dev/cpu_dma_latency has no effect)
  shared                      other machines write to the vault too: cache little
  threads=N                   threads that serve requests (1 to 256; 4)
  nonempty                    mount over a directory that has entries";

/// Options addressed to systemd, to mount(8) or to nobody.
fn is_foreign(name: &str) -> bool {
    name.starts_with("x-") || name.starts_with("X-") || name.starts_with("comment")
}

fn unknown(name: &str) -> CliError {
    CliError::new(Exit::Usage, format!("unknown mount option: {name}"))
        .advise("'kmsfs mount --help' lists the options of kmsfs itself")
}

fn bad(name: &str, value: &str, allowed: &str) -> CliError {
    CliError::new(
        Exit::Usage,
        format!("bad value of mount option {name}: '{value}', not {allowed}"),
    )
}

/// Known, and without an effect here: they are for whoever calls mount(8).
const IGNORED: &[&str] = &[
    "defaults",
    "auto",
    "noauto",
    "nofail",
    "nouser",
    "nousers",
    "_netdev",
    "_rnetdev",
    "nogroup",
    "noowner",
    "silent",
    "loud",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "big_writes",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountOptions, CliError> {
        MountOptions::parse(&[text.to_owned()])
    }

    #[test]
    fn what_test_suites_and_fstab_say_is_accepted() {
        let line = "rw,suid,dev,subtype=kmsfs,allow_other,default_permissions,_netdev,\
                    nofail,noauto,x-systemd.requires-mounts-for=/srv,noatime,key-file=/etc/k";
        let options = parse(line).unwrap();
        assert_eq!((options.suid, options.dev), (Some(true), Some(true)));
        assert_eq!(options.key_file, Some(PathBuf::from("/etc/k")));
        assert!(options.allow_other);
    }

    #[test]
    fn what_the_reference_lists_is_known() {
        let page = include_str!("../../../docs/REFERENCE.md");
        let (_, section) = page.split_once("## Mount options").unwrap();
        let (section, _) = section.split_once("## Exit codes").unwrap();
        let (known, _) = section.split_once("An unknown option").unwrap();
        // In the table, options stand in the first column.
        let cells = known.lines().map(|line| match line.strip_prefix("| ") {
            Some(row) => row.split(" | ").next().unwrap(),
            None => line.split("(EPERM)").next().unwrap(),
        });
        let (mut seen, mut wrong) = (0, Vec::new());
        let options = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        for option in options.filter(|option| *option != "-o") {
            let what = parse(option).err().map(|error| error.what);
            seen += 1;
            wrong.extend(what.filter(|what| what.starts_with("unknown")));
        }
        assert!(seen > 30, "only {seen} options were found");
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// Whoever has only the program finds them there.
    #[test]
    fn the_help_has_the_options_of_the_reference() {
        let page = include_str!("../../../docs/REFERENCE.md");
        let (_, table) = page.split_once("| option | |").unwrap();
        let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("| "));
        let cells = rows.map(|row| row.split(" | ").next().unwrap());
        let options: Vec<String> = cells
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .map(|option| option.replace('\\', ""))
            .collect();
        assert!(options.len() > 10, "only {} options were found", options.len());
        for option in options {
            assert!(OPTIONS.contains(&option), "the help of -o lacks {option}");
        }
    }

    /// From a line of fstab, `suid` and `dev` never came here.
    #[test]
    fn regression_what_mount_keeps_for_itself_has_other_words() {
        let options = parse("allow_suid,allow_dev").unwrap();
        assert_eq!((options.suid, options.dev), (Some(true), Some(true)));
        assert_eq!(parse("allow_suid,user").unwrap().suid, Some(false));
    }

    #[test]
    fn the_later_option_wins() {
        assert_eq!(parse("ro,rw").unwrap().read_only, Some(false));
        assert_eq!(parse("user,exec").unwrap().exec, Some(true));
        assert_eq!(parse("user").unwrap().suid, Some(false));
    }

    #[test]
    fn an_unknown_option_is_refused_by_name() {
        let error = parse("ro,compress=zstd").unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert_eq!(error.what, "unknown mount option: compress");
        assert_eq!(parse("turbo").unwrap_err().what, "unknown mount option: turbo");
    }

    /// They were taken and did nothing.
    #[test]
    fn regression_another_source_or_type_is_refused_by_name() {
        for option in ["fsname=x", "subtype=x", "user_id=7", "group_id=7", "rootmode=40000"] {
            let error = parse(option).unwrap_err();
            assert!(error.what.contains(option.split('=').next().unwrap()), "{}", error.what);
        }
    }

    #[test]
    fn an_endpoint_may_stand_in_fstab() {
        let options = parse("kms=https://kms.example:8443,kms-credentials=/etc/aws,kms-grace=5");
        let kms = options.unwrap().kms;
        assert_eq!(kms.url.as_deref(), Some("https://kms.example:8443"));
        assert_eq!((kms.credentials, kms.grace), (Some("/etc/aws".into()), Some(5)));
        assert!(parse("kms-grace=soon").is_err());
    }

    #[test]
    fn pages_are_journaled_as_asked_for() {
        assert_eq!(parse("rw").unwrap().page_journal, PageJournaling::Auto);
        assert_eq!(parse("page-journal=on").unwrap().page_journal, PageJournaling::On);
        assert_eq!(parse("page-journal=off").unwrap().page_journal, PageJournaling::Off);
        let what = parse("page-journal=yes").unwrap_err().what;
        assert_eq!(what, "bad value of mount option page-journal: 'yes', not auto, on or off");
    }

    #[test]
    fn processors_are_kept_awake_as_asked_for() {
        assert_eq!(parse("rw").unwrap().keep_awake, KeepAwake::Auto);
        assert_eq!(parse("keep-awake=on").unwrap().keep_awake, KeepAwake::On);
        assert_eq!(parse("keep-awake=on,keep-awake=off").unwrap().keep_awake, KeepAwake::Off);
        let what = parse("keep-awake=yes").unwrap_err().what;
        assert_eq!(what, "bad value of mount option keep-awake: 'yes', not auto, on or off");
    }

    #[test]
    fn a_bad_number_is_refused() {
        let zero = parse("threads=0").unwrap_err();
        assert_eq!(zero.what, "bad value of mount option threads: '0', not 1 to 256");
        assert!(parse("threads=many").is_err());
    }
}
