//! Principals and points in time, as people name them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::cli::report::exit::{CliError, Exit};
use crate::keystore::policy::{Named, ROOT_ARN};
use crate::keystore::{Principal, group_arn};

/// The ARN of a principal: `root`, `user:NAME`, `uid:N`, `gid:N`, an ARN, or a user of this
/// machine.
pub(in crate::cli) fn arn(named: &str) -> Result<String, CliError> {
    let unknown = |why: String| {
        CliError::new(Exit::Usage, why)
            .advise("name root, user:NAME, uid:N, gid:N, an ARN, or a user of this machine")
    };
    let number = |text: &str| -> Result<u32, CliError> {
        text.parse().map_err(|_| unknown(format!("'{named}' has no number after the colon")))
    };
    let arn = match named.split_once(':') {
        None if named == "root" => ROOT_ARN.to_owned(),
        None => {
            let uid = uid_of(named);
            let uid = uid.ok_or_else(|| unknown(format!("this machine has no user '{named}'")))?;
            Principal::Unix { uid }.arn()
        }
        Some(("uid", uid)) => Principal::Unix { uid: number(uid)? }.arn(),
        Some(("gid", gid)) => group_arn(number(gid)?),
        Some(("user", name)) => Principal::User(name.to_owned()).arn(),
        Some(_) => named.to_owned(),
    };
    match Named::parse(&arn) {
        Some(parsed) => Ok(parsed.as_str().to_owned()),
        None => Err(unknown(format!("'{named}' is no principal of this keystore"))),
    }
}

/// An ARN as a person reads it: the short form that [`arn`] takes.
pub(in crate::cli) fn short(arn: &str) -> String {
    let local = arn.strip_prefix("arn:aws:iam::000000000000:").unwrap_or(arn);
    for (prefix, short) in [("user/unix/", "uid:"), ("group/unix/", "gid:"), ("user/", "user:")] {
        if let Some(rest) = local.strip_prefix(prefix) {
            return format!("{short}{rest}");
        }
    }
    local.to_owned()
}

/// The end of something: a time from now such as `30d`, a day, or an instant.
pub(in crate::cli) fn end(text: &str, now: SystemTime) -> Result<SystemTime, CliError> {
    let wrong = || {
        CliError::new(Exit::Usage, format!("'{text}' is no time"))
            .advise("write 30d, 12h or 90m, or 2026-12-31 or 2026-12-31T18:00:00Z")
    };
    for (unit, seconds) in [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)] {
        if let Some(count) = text.strip_suffix(unit).and_then(|count| count.parse::<u64>().ok()) {
            let after = count.checked_mul(seconds).map(Duration::from_secs);
            return after.and_then(|after| now.checked_add(after)).ok_or_else(wrong);
        }
    }
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Ok(instant.into());
    }
    let day: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
    let midnight = day.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| wrong())?;
    Ok(midnight.timestamp().into())
}

/// The number of a user: from the file, or from wherever else the system keeps users.
fn uid_of(name: &str) -> Option<u32> {
    let file = std::fs::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
    uid_in(&file, name).or_else(|| {
        let asked = Command::new("getent").args(["passwd", name]).output().ok()?;
        uid_in(&String::from_utf8_lossy(&asked.stdout), name)
    })
}

fn uid_in(passwd: &str, name: &str) -> Option<u32> {
    let of_user = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    passwd.lines().find_map(of_user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_are_named_in_short_and_in_full() {
        let account = "arn:aws:iam::000000000000:";
        for (named, expected) in [
            ("root", "root"),
            ("000000000000", "root"),
            ("uid:1000", "user/unix/1000"),
            ("gid:27", "group/unix/27"),
            ("user:ci", "user/ci"),
            ("arn:aws:iam::000000000000:user/ci", "user/ci"),
        ] {
            let found = if named == "000000000000" { arn(ROOT_ARN) } else { arn(named) };
            assert_eq!(found.unwrap(), format!("{account}{expected}"), "{named}");
        }
        for named in ["", "uid:x", "gid:-1", "user:", "user:a b", "nobody-has-this-name", "x:y"] {
            assert_eq!(arn(named).unwrap_err().exit, Exit::Usage, "{named}");
        }
        assert_eq!(short(&format!("{account}user/unix/5")), "uid:5");
        assert_eq!(arn(&short(&format!("{account}user/ci"))).unwrap(), format!("{account}user/ci"));
    }

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nal:x:1000:1000::/home/al:/bin/sh\n";
        assert_eq!(uid_in(passwd, "al"), Some(1000));
        assert_eq!(uid_in(passwd, "a"), None);
        assert_eq!(uid_in(passwd, "x"), None);
    }

    #[test]
    fn ends_are_spans_days_or_instants() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let seconds = |text| {
            let end = end(text, now).unwrap();
            end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
        };
        assert_eq!(seconds("2d"), 1000 + 2 * 86_400);
        assert_eq!(seconds("90m"), 1000 + 5400);
        assert_eq!(seconds("1970-01-02"), 86_400);
        assert_eq!(seconds("1970-01-01T01:00:00Z"), 3600);
        for text in ["", "d", "-1d", "soon", "99999999999999999999d", "18446744073709551615d"] {
            assert_eq!(end(text, now).unwrap_err().exit, Exit::Usage, "{text}");
        }
    }
}
