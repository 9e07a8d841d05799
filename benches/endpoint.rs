//! Operations through a served keystore, as a client sees them: `cargo bench --bench endpoint`.
//! Starts the program, calls it over loopback and a Unix socket on one kept connection, each
//! request signed and verified, and prints p50 and p99 in microseconds.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use kmsfs::endpoint::{Credentials, Endpoint, Options};
use kmsfs::keystore::{
    CreateAccessKey, CreateKey, KeySpec, KeyUsage, Keystore, Unlock, create_key_file,
};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("kmsfs-bench-endpoint-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let measured = measure(&dir);
    std::fs::remove_dir_all(&dir)?;
    measured
}

/// The server, which ends with the measurement.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure(dir: &Path) -> Result<(), Box<dyn Error>> {
    let (credentials, signing) = keystore(dir)?;
    let socket = format!("unix:{}", dir.join("kms.sock").display());
    let (_server, addresses) = serve(dir, &socket)?;
    println!("{:<22} {:>10} {:>10} {:>10} {:>10}", "", "loopback", "", "unix", "");
    println!("{:<22} {:>10} {:>10} {:>10} {:>10}", "µs", "p50", "p99", "p50", "p99");
    let mut rows: Vec<(String, Vec<u128>)> = Vec::new();
    for address in &addresses {
        let (id, secret) = &credentials;
        let credentials = Credentials::new(id, secret, None);
        let endpoint =
            Endpoint::new(address.parse()?, None, credentials, None, Options::default())?;
        for (index, (name, operation, request)) in
            requests(&endpoint, &signing)?.into_iter().enumerate()
        {
            let [p50, p99] = percentiles(&endpoint, operation, &request)?;
            match rows.get_mut(index) {
                Some((_, numbers)) => numbers.extend([p50, p99]),
                None => rows.push((name.to_owned(), vec![p50, p99])),
            }
        }
    }
    for (name, numbers) in rows {
        let columns: Vec<String> = numbers.iter().map(|number| format!("{number:>10}")).collect();
        println!("{name:<22} {}", columns.join(" "));
    }
    Ok(())
}

/// Id and secret.
type AccessKey = (String, String);

/// A keystore with the default key, a signing key and an access key of the account's root.
fn keystore(dir: &Path) -> Result<(AccessKey, [String; 2]), Box<dyn Error>> {
    let now = SystemTime::now();
    create_key_file(&dir.join("key"))?;
    let keystore = Keystore::create(&dir.join("store.db"), &Unlock::KeyFile(dir.join("key")), now)?;
    keystore.ensure_default_key(now)?;
    let mut signing = Vec::new();
    for spec in [KeySpec::EccNistP256, KeySpec::Rsa2048] {
        let usage = Some(KeyUsage::SignVerify);
        let request = CreateKey { spec: Some(spec), usage, ..CreateKey::default() };
        signing.push(keystore.create_key(request, now)?.key_id.to_string());
    }
    let access = keystore.create_access_key(&CreateAccessKey::default(), now)?;
    let signing = <[String; 2]>::try_from(signing).map_err(|_| "two keys were made")?;
    Ok(((access.id, access.secret.to_string()), signing))
}

fn serve(dir: &Path, socket: &str) -> Result<(Server, Vec<String>), Box<dyn Error>> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_kmsfs"));
    let child = Command::new(program)
        .args(["--json", "--keystore", "store.db", "--key-file", "key", "serve"])
        .args(["--listen", "127.0.0.1:0", "--listen", socket])
        .current_dir(dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut server = Server(child);
    let stdout = server.0.stdout.as_mut().ok_or("the program has an output")?;
    let said = serde_json::Deserializer::from_reader(stdout).into_iter::<Value>().next();
    let said = said.ok_or("the server did not start")??;
    let addresses = said["listening"].as_array().ok_or("the server says where it listens")?;
    let addresses = addresses.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok((server, addresses))
}

type Request = (&'static str, &'static str, Value);

fn requests(endpoint: &Endpoint, [ecc, rsa]: &[String; 2]) -> Result<Vec<Request>, Box<dyn Error>> {
    let key = "alias/kmsfs/default";
    let context = json!({ "kind": "bench" });
    let encrypt =
        json!({ "KeyId": key, "Plaintext": "aGVsbG8gd29ybGQ=", "EncryptionContext": context });
    let blob = endpoint.call("Encrypt", &encrypt)?["CiphertextBlob"].clone();
    let sign = |key: &str, algorithm: &str| json!({ "KeyId": key, "Message": "aGVsbG8=", "SigningAlgorithm": algorithm });
    Ok(vec![
        ("GenerateDataKey", "GenerateDataKey", json!({ "KeyId": key, "KeySpec": "AES_256" })),
        ("Encrypt", "Encrypt", encrypt),
        (
            "Decrypt",
            "Decrypt",
            json!({ "CiphertextBlob": blob, "EncryptionContext": { "kind": "bench" } }),
        ),
        ("DescribeKey", "DescribeKey", json!({ "KeyId": key })),
        ("Sign (P-256)", "Sign", sign(ecc, "ECDSA_SHA_256")),
        ("Sign (RSA-2048)", "Sign", sign(rsa, "RSASSA_PSS_SHA_256")),
    ])
}

fn percentiles(
    endpoint: &Endpoint,
    operation: &str,
    request: &Value,
) -> Result<[u128; 2], Box<dyn Error>> {
    for _ in 0..WARM {
        endpoint.call(operation, request)?;
    }
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let start = Instant::now();
        endpoint.call(operation, request)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let at = |percent: usize| times.get(CALLS * percent / 100).map_or(0, Duration::as_micros);
    Ok([at(50), at(99)])
}

const WARM: usize = 100;
const CALLS: usize = 2000;
