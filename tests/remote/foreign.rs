//! A KMS that is not ours: its ciphertexts are 184 bytes, as those of AWS, and mean nothing
//! without it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use base64ct::{Base64, Encoding};
use kmsfs::crypto::random;
use kmsfs::id::KeyId;
use serde_json::{Value, json};

const CIPHERTEXT_LEN: usize = 184;
const BUSY: &str = "ServiceUnavailableException";

/// A server on a loopback address.
pub(crate) struct ForeignKms {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// What an answer to Decrypt says instead of the truth.
pub(crate) enum Lie {
    AboutKey(KeyId),
    Denied,
    ShortPlaintext,
}

#[derive(Default)]
struct State {
    keys: HashMap<String, Key>,
    ciphertexts: HashMap<Vec<u8>, Sealed>,
    calls: HashMap<String, usize>,
    connections: Vec<TcpStream>,
    lies: Vec<Lie>,
    /// What DescribeKey says instead of an answer.
    describe_fails: Option<&'static str>,
    /// Every request is answered with status 503.
    overwhelmed: bool,
    stopping: bool,
}

struct Key {
    state: &'static str,
    materials: usize,
}

#[derive(Clone)]
struct Sealed {
    key: String,
    context: Value,
    plaintext: Vec<u8>,
}

type Refusal = (&'static str, String);
type Answer = Result<Value, Refusal>;

impl ForeignKms {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::default();
        let thread = Some(serve(listener, &state));
        Self { state, address, thread }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A key with this id, as the service spells it.
    pub(crate) fn create_key(&self, name: &str) -> KeyId {
        self.lock().keys.insert(name.to_owned(), Key { state: "Enabled", materials: 1 });
        name.parse().unwrap()
    }

    pub(crate) fn set_state(&self, key: KeyId, state: &'static str) {
        self.lock().keys.get_mut(&key.to_string()).unwrap().state = state;
    }

    pub(crate) fn rotate(&self, key: KeyId) {
        self.lock().keys.get_mut(&key.to_string()).unwrap().materials += 1;
    }

    /// DescribeKey gives this exception from now on, or its answer again.
    pub(crate) fn fail_describe(&self, exception: Option<&'static str>) {
        self.lock().describe_fails = exception;
    }

    /// All requests are turned away from now on, or answered again.
    pub(crate) fn overwhelm(&self, overwhelmed: bool) {
        self.lock().overwhelmed = overwhelmed;
    }

    pub(crate) fn answer_next_decrypt_as(&self, lie: Lie) {
        self.lock().lies.push(lie);
    }

    /// How often an operation was called.
    pub(crate) fn count(&self, operation: &str) -> usize {
        self.lock().calls.get(operation).copied().unwrap_or(0)
    }

    /// Cuts all connections, and takes no more.
    pub(crate) fn stop(&mut self) {
        self.lock().stopping = true;
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
        for connection in self.lock().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn restart(&mut self) {
        self.lock().stopping = false;
        self.thread = Some(serve(TcpListener::bind(self.address).unwrap(), &self.state));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for ForeignKms {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

fn serve(listener: TcpListener, state: &Arc<Mutex<State>>) -> JoinHandle<()> {
    let state = state.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if state.lock().unwrap().stopping {
                return;
            }
            state.lock().unwrap().connections.push(stream.try_clone().unwrap());
            let state = state.clone();
            std::thread::spawn(move || converse(stream, &state));
        }
    })
}

/// Answers the requests of one connection until its end.
fn converse(stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let mut body = vec![0; header("content-length: ")?.parse().ok()?];
        reader.read_exact(&mut body).ok()?;
        let operation = header("x-amz-target: TrentService.")?;
        let answer = state.lock().unwrap().answer(operation, &serde_json::from_slice(&body).ok()?);
        let (status, body) = match answer {
            Ok(answer) => ("200 OK", answer),
            Err((name, message)) => {
                let status = if name == BUSY { "503 Busy" } else { "400 Bad Request" };
                (status, json!({ "__type": name, "message": message }))
            }
        };
        let body = body.to_string();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        writer.write_all(format!("{head}{body}").as_bytes()).ok()?;
    }
}

impl State {
    fn answer(&mut self, operation: &str, request: &Value) -> Answer {
        *self.calls.entry(operation.to_owned()).or_default() += 1;
        match operation {
            _ if self.overwhelmed => Err((BUSY, "Too many connections at once.".to_owned())),
            "DescribeKey" => self.describe(request),
            "GenerateDataKey" => {
                let mut plaintext = vec![0; 32];
                random::fill(&mut plaintext).unwrap();
                let context = request["EncryptionContext"].clone();
                let key = self.usable(&request["KeyId"])?;
                Ok(self.sealed(Sealed { key, context, plaintext }))
            }
            "Decrypt" => self.decrypt(request),
            "ReEncrypt" => {
                let (from, from_context) = ("SourceKeyId", "SourceEncryptionContext");
                let opened = self.opened(request, &request[from], &request[from_context])?;
                let key = self.usable(&request["DestinationKeyId"])?;
                let context = request["DestinationEncryptionContext"].clone();
                let mut answer = self.sealed(Sealed { key, context, ..opened });
                answer["DestinationKeyMaterialId"] = answer["KeyMaterialId"].take();
                Ok(answer)
            }
            other => Err(("UnknownOperationException", other.to_owned())),
        }
    }

    fn describe(&self, request: &Value) -> Answer {
        if let Some(exception) = self.describe_fails {
            return Err((exception, "not now".to_owned()));
        }
        let name = request["KeyId"].as_str().unwrap();
        let key = self.keys.get(name).ok_or(("NotFoundException", format!("no key {name}")))?;
        Ok(json!({ "KeyMetadata": {
            "KeyId": name,
            "Arn": arn(name),
            "KeyState": key.state,
            "CurrentKeyMaterialId": self.material(name),
        }}))
    }

    fn decrypt(&mut self, request: &Value) -> Answer {
        let context = &request["EncryptionContext"];
        let opened = self.opened(request, &request["KeyId"], context)?;
        let mut answer = json!({ "KeyId": arn(&opened.key), "Plaintext": Base64::encode_string(&opened.plaintext) });
        match self.lies.pop() {
            Some(Lie::Denied) => {
                return Err(("AccessDeniedException", "User is not authorized".to_owned()));
            }
            Some(Lie::AboutKey(key)) => answer["KeyId"] = arn(&key.to_string()).into(),
            Some(Lie::ShortPlaintext) => {
                answer["Plaintext"] = Base64::encode_string(&opened.plaintext[1..]).into();
            }
            None => {}
        }
        Ok(answer)
    }

    fn opened(&self, request: &Value, key: &Value, context: &Value) -> Result<Sealed, Refusal> {
        let blob = Base64::decode_vec(request["CiphertextBlob"].as_str().unwrap()).unwrap();
        let sealed = self.ciphertexts.get(&blob).filter(|sealed| sealed.context == *context);
        let sealed = sealed.ok_or(("InvalidCiphertextException", String::new()))?;
        if self.usable(key)? != sealed.key {
            return Err(("IncorrectKeyException", String::new()));
        }
        Ok(sealed.clone())
    }

    fn sealed(&mut self, sealed: Sealed) -> Value {
        let mut blob = vec![0; CIPHERTEXT_LEN];
        random::fill(&mut blob).unwrap();
        let answer = json!({
            "CiphertextBlob": Base64::encode_string(&blob),
            "Plaintext": Base64::encode_string(&sealed.plaintext),
            "KeyId": arn(&sealed.key),
            "KeyMaterialId": self.material(&sealed.key),
        });
        self.ciphertexts.insert(blob, sealed);
        answer
    }

    fn usable(&self, name: &Value) -> Result<String, Refusal> {
        let name = name.as_str().unwrap();
        let key = self.keys.get(name).ok_or(("NotFoundException", format!("no key {name}")))?;
        match key.state {
            "Enabled" => Ok(name.to_owned()),
            state => Err(("DisabledException", format!("{name} is {state}"))),
        }
    }

    fn material(&self, name: &str) -> String {
        format!("material-{}-of-{name}", self.keys[name].materials)
    }
}

fn arn(name: &str) -> String {
    format!("arn:aws:kms:eu-west-1:111122223333:key/{name}")
}
