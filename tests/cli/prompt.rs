//! Passphrases that are typed at a terminal.

use std::process::Command;

use crate::machine::Machine;

/// Ctrl-C, SIGTERM or SIGHUP at the prompt left a terminal that shows nothing of what is typed.
#[test]
fn regression_a_signal_at_a_prompt_leaves_the_terminal_its_echo() {
    let machine = Machine::new();
    let words = ["--passphrase-fd", "0", "keystore", "init"];
    assert_eq!(machine.feed(&words, "open sesame\n"), 0);
    let mut python = Command::new("python3");
    python.args(["-c", TYPIST, env!("CARGO_BIN_EXE_kmsfs")]);
    let typed = python.arg(machine.path("data/kmsfs/keystore.db")).output().unwrap();
    let told = String::from_utf8_lossy(&typed.stdout).into_owned();
    assert!(typed.status.success(), "{told}{}", String::from_utf8_lossy(&typed.stderr));
    assert_eq!(told, "INT -2\nQUIT -3\nTERM -15\nHUP -1\ntyped 0\nwrong 3\nend 3\nstopped 0\n");
}

/// Types at a terminal of its own; each time nothing is shown at the prompt, and everything after it.
const TYPIST: &str = r#"
import fcntl, os, pty, select, signal, subprocess, sys, termios, time

def begin():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # Where tests run in the background, some of these are ignored.
    for each in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)

def echoes(terminal):
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)

def until(what):
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end, "waits"
        time.sleep(0.02)

def read(end, text):
    seen = b""
    while text not in seen:
        assert select.select([end], [], [], 60)[0], seen
        seen += os.read(end, 4096)

for name, does in [
    ("INT", b"sec\x03"), ("QUIT", b"\x1c"), ("TERM", signal.SIGTERM), ("HUP", signal.SIGHUP),
    ("typed", b"open sesame\n"), ("wrong", b"open barley\n"), ("end", b"\x04"), ("stopped", None),
]:
    end, terminal = pty.openpty()
    words = [sys.argv[1], "--keystore", sys.argv[2], "key", "list"]
    running = subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal, preexec_fn=begin)
    read(end, b"passphrase for")
    assert not echoes(terminal), name
    if does is None:
        # Nobody could continue what is alone in its session, so it is not stopped: it asks again.
        running.send_signal(signal.SIGTSTP)
        read(end, b"passphrase for")
        assert not echoes(terminal), name
        does = b"open sesame\n"
    if isinstance(does, bytes):
        os.write(end, does)
    else:
        running.send_signal(does)
    def ended():
        while select.select([end], [], [], 0)[0]:
            os.read(end, 4096)
        return running.poll() is not None
    until(ended)
    assert echoes(terminal), name
    print(name, running.returncode)
    os.close(end)
    os.close(terminal)
"#;
