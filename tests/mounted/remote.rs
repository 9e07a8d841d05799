//! Vaults whose data keys come from a KMS at an endpoint: a served keystore on another "host" (a
//! network namespace), and a KMS that is not ours.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Vault, is_root, program, python};

const DEFAULT: &str = "alias/kmsfs/default";
/// What a host needs of the keys of its volumes.
const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Resource":"*",
    "Action":["kms:DescribeKey","kms:GenerateDataKey","kms:Decrypt","kms:ReEncrypt*"]}]}"#;
/// A change at the service is noticed in about three seconds.
const FELT: Duration = Duration::from_secs(30);

#[test]
fn a_vault_opens_with_keys_from_another_host_also_after_the_server_restarts() {
    assert!(
        is_root(),
        "this makes network namespaces: run it as root (add `-- --skip remote::` else)"
    );
    let hosts = Hosts::new();
    let kms = Vault::new("kms");
    let mut server = Server::with_tls(&kms, &hosts);
    let vault = Vault::new("remote").within(hosts.enter(&hosts.client));
    let mount = vault.mount_with(&[&["--create"], &server.options()[..]].concat());
    fs::write(mount.path("file"), "contents").unwrap();
    let handle = File::open(mount.path("file")).unwrap();
    fs::write(mount.path("closed"), "contents").unwrap();
    assert!(vault.kmsfs(["status", mount.root().to_str().unwrap()]).contains("https://"));

    server.stop();
    assert_eq!(errno(File::open(mount.path("closed"))), Some(libc::EHOSTDOWN));
    assert_eq!(handle.read_at(&mut [0; 8], 0).unwrap(), 8, "what is open goes on");
    server.start();
    wait_until("opening works again", || fs::read(mount.path("closed")).is_ok());
    fs::write(mount.path("new"), "contents").unwrap();

    kms.kmsfs(["key", "disable", DEFAULT]);
    wait_until("the key is gone", || errno(File::open(mount.path("file"))) == Some(libc::ENOKEY));
    wait_until("for the open handle too", || handle.read_at(&mut [0; 8], 0).is_err());
    kms.kmsfs(["key", "enable", DEFAULT]);
    wait_until("it is back", || fs::read(mount.path("file")).is_ok());

    kms.kmsfs(["key", "rotate", DEFAULT]);
    // The server hears of a rotation by another process a moment later.
    wait_until("all files are under the new material", || {
        let mut command = vault.command();
        command.arg("rewrap").arg(mount.root()).output().unwrap().status.success()
    });
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "contents");
    drop(handle);
    mount.unmount();
    offline(&vault, &server);

    // The vault does not know where its keys came from: the keystore itself opens it as well.
    assert_eq!(kms.kmsfs(["cat", vault.store().to_str().unwrap(), "file"]), "contents");
}

/// Commands that open the vault by themselves.
fn offline(vault: &Vault, server: &Server<'_>) {
    let store = vault.store().to_str().unwrap();
    let run = |words: &[&str]| {
        let output = vault.command().args(words).args(server.options()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&["cat", store, "file"]), "contents");
    assert!(run(&["fsck", store]).contains("all well"));
    run(&["rewrap", store]);
}

#[test]
fn an_access_key_that_is_unknown_or_no_volumes_opens_nothing() {
    let kms = Vault::new("strangers");
    let server = Server::on_socket(&kms);
    let vault = Vault::new("stranger");
    let strange = vault.outside("strange");
    write_credentials(&strange, "AKIDUNKNOWN", "wrong");
    let url = server.url();
    let words = ["init", vault.store().to_str().unwrap(), "--kms", &url, "--kms-credentials"];
    let refused = vault.command().args(words).arg(&strange).output().unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("UnrecognizedClientException"), "{said}");
    let missing = vault.command().args(&words[..4]).output().unwrap();
    assert_eq!(missing.status.code(), Some(4), "no access key was named");
    let nobody = ["init", vault.store().to_str().unwrap(), "--kms", "unix:/nonexistent/kms.sock"];
    let nobody =
        vault.command().args(nobody).arg("--kms-credentials").arg(&strange).output().unwrap();
    assert_eq!(nobody.status.code(), Some(19), "nobody answers");
}

#[test]
fn a_foreign_kms_keeps_a_vault_that_only_it_can_open() {
    let foreign = Moto::start();
    let vault = Vault::new("foreign");
    let (one, two) = (foreign.create_key(), foreign.create_key());
    let credentials = vault.outside("credentials");
    write_credentials(&credentials, "AKIDEXAMPLE", "secret");
    let kms = format!("kms={},kms-credentials={}", foreign.url(), credentials.display());
    let options = ["-o", &kms, "-o", "kms-region=us-east-1"];
    let store = vault.store().to_str().unwrap();
    let url = foreign.url();
    let init = ["init", store, "--key", &one, "--kms", &url, "--kms-region", "us-east-1"];
    let made = vault.command().args(init).arg("--kms-credentials").arg(&credentials).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mount = vault.mount_with(&options);
    fs::write(mount.path("file"), "contents").unwrap();
    fs::create_dir(mount.path("dir")).unwrap();
    vault.kmsfs(["policy", "set", mount.path("dir").to_str().unwrap(), "--key", &two]);
    fs::write(mount.path("dir/file"), "under the other key").unwrap();
    mount.unmount();
    let mount = vault.mount_with(&options);
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "contents");
    assert_eq!(fs::read_to_string(mount.path("dir/file")).unwrap(), "under the other key");
    foreign.call("DisableKey", &two);
    wait_until("the directory is dark", || fs::read(mount.path("dir/file")).is_err());
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "contents");
}

/// Two network namespaces with a cable between them.
struct Hosts {
    server: String,
    client: String,
    address: String,
}

impl Hosts {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let hosts = Self {
            server: format!("kmsfs-s-{id}"),
            client: format!("kmsfs-c-{id}"),
            address: "10.73.0.1".to_owned(),
        };
        for name in [&hosts.server, &hosts.client] {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        let (s, c) = (&*hosts.server, &*hosts.client);
        ip(&["-n", s, "link", "add", "kms0", "type", "veth", "peer", "name", "kms1", "netns", c]);
        for (name, end, address) in [(s, "kms0", "10.73.0.1/24"), (c, "kms1", "10.73.0.2/24")] {
            ip(&["-n", name, "address", "add", address, "dev", end]);
            ip(&["-n", name, "link", "set", end, "up"]);
        }
        hosts
    }

    /// What runs a program in a namespace. Its mounts stay visible outside.
    fn enter(&self, name: &str) -> Vec<String> {
        let nsenter = program("nsenter").to_string_lossy().into_owned();
        vec![nsenter, format!("--net=/run/netns/{name}"), "--".to_owned()]
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in [&self.server, &self.client] {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

fn ip(words: &[&str]) {
    let output = Command::new(program("ip")).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {words:?}: {said}");
}

/// `kmsfs serve` on the keystore of a vault that is never made.
struct Server<'v> {
    kms: &'v Vault,
    prefix: Vec<String>,
    words: Vec<String>,
    ca: Option<PathBuf>,
    url: String,
    process: Option<Child>,
}

impl<'v> Server<'v> {
    fn with_tls(kms: &'v Vault, hosts: &Hosts) -> Self {
        let (cert, key) = certificate(kms, &hosts.address);
        let words = ["--listen", &format!("{}:8443", hosts.address), "--tls-cert"]
            .map(str::to_owned)
            .into_iter()
            .chain([cert.display().to_string(), "--tls-key".into(), key.display().to_string()]);
        let url = format!("https://{}:8443", hosts.address);
        Self::new(kms, hosts.enter(&hosts.server), words.collect(), Some(cert), url)
    }

    fn on_socket(kms: &'v Vault) -> Self {
        let url = format!("unix:{}", kms.outside("kms.sock").display());
        Self::new(kms, Vec::new(), vec!["--listen".into(), url.clone()], None, url)
    }

    fn new(
        kms: &'v Vault,
        prefix: Vec<String>,
        words: Vec<String>,
        ca: Option<PathBuf>,
        url: String,
    ) -> Self {
        kms.kmsfs(["keystore", "init", "--create-key-file"]);
        kms.kmsfs(["key", "create", "--alias", DEFAULT]);
        let credentials = kms.outside("credentials");
        let file = ["--credentials-file", credentials.to_str().unwrap()];
        kms.kmsfs(["access-key", "create", "--user", "host", "--for-volumes", file[0], file[1]]);
        let policy = kms.outside("policy.json");
        fs::write(&policy, POLICY).unwrap();
        let policy = policy.to_str().unwrap();
        kms.kmsfs(["principal", "policy", "put", "user:host", "volumes", policy]);
        let mut server = Self { kms, prefix, words, ca, url, process: None };
        server.start();
        server
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    /// What a command that uses this server says.
    fn options(&self) -> Vec<&str> {
        // Kept for the length of the test.
        let credentials = self.kms.outside("credentials").display().to_string().leak();
        let mut options = vec!["--kms", &*self.url, "--kms-credentials", credentials];
        if let Some(ca) = &self.ca {
            options.extend(["--kms-ca", ca.to_str().unwrap()]);
        }
        options
    }

    fn start(&mut self) {
        let plain = self.kms.command();
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(plain.get_program()).args(plain.get_args());
                command
            }
            None => plain,
        };
        let log = File::options().create(true).append(true).open(self.kms.outside("serve.log"));
        let started = command.arg("serve").args(&self.words).stdin(Stdio::null());
        let mut process = started.stdout(Stdio::piped()).stderr(log.unwrap()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = fs::read_to_string(self.kms.outside("serve.log")).unwrap_or_default();
        assert!(line.starts_with("listening at"), "{line}{log}");
        self.process = Some(process);
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

fn certificate(kms: &Vault, address: &str) -> (PathBuf, PathBuf) {
    let (cert, key) = (kms.outside("cert.pem"), kms.outside("key.pem"));
    let made = Command::new(program("openssl"))
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=kms", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", &format!("subjectAltName=IP:{address}")])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    make_private(&key);
    (cert, key)
}

fn write_credentials(path: &Path, id: &str, secret: &str) {
    let text = format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    fs::write(path, text).unwrap();
    make_private(path);
}

fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// moto's stand-in for AWS KMS: its ciphertexts are its own.
struct Moto {
    process: Child,
    port: u16,
}

impl Moto {
    fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(python("moto_server"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { process, port };
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "moto_server did not start");
            thread::sleep(Duration::from_millis(100));
        }
        moto
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn create_key(&self) -> String {
        let answer: Value = serde_json::from_str(&self.post("CreateKey", "{}")).unwrap();
        answer["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
    }

    fn call(&self, operation: &str, key: &str) {
        self.post(operation, &format!(r#"{{"KeyId":"{key}"}}"#));
    }

    /// Moto checks no signature, but takes the region from it.
    fn post(&self, operation: &str, body: &str) -> String {
        let scope = "AKIDEXAMPLE/20260101/us-east-1/kms/aws4_request";
        let output = Command::new(program("curl"))
            .args(["-sS", "-X", "POST", &self.url(), "-d", body])
            .args(["-H", &format!("X-Amz-Target: TrentService.{operation}")])
            .args(["-H", "Content-Type: application/x-amz-json-1.1"])
            .args(["-H", &format!("Authorization: AWS4-HMAC-SHA256 Credential={scope}")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < FELT, "{what}: not within {FELT:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
