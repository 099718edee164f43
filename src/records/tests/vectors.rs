//! RFC 8448 3: an independent account of the records of one connection.

mod common;

use common::Ring;
use records::{Content, Receiver, Role, Secret, Sender, Suite, TrafficKeys};

const CLIENT_SECRET: &str = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
const SERVER_SECRET: &str = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
const CLIENT_DATA: &str = "1703030043 a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b98
    19a8a5b46b395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
const SERVER_DATA: &str = "1703030043 2e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30e
    faf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";
const CLIENT_ALERT: &str = "1703030013 c9872760655666b74d7ff1153efd6db6d0b0e3";
const SERVER_ALERT: &str = "1703030013 b58fd67166ebf599d24720cfbe7efa7a8864a9";

fn bytes(hex: &str) -> Vec<u8> {
    let hex: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let text = |pair: &[u8]| String::from_utf8(pair.to_vec()).expect("ASCII");
    hex.chunks(2).map(|pair| u8::from_str_radix(&text(pair), 16).expect("hex")).collect()
}

fn keys(secret: &str) -> TrafficKeys {
    let secret = Secret::new(Suite::Aes128Gcm, &bytes(secret)).expect("its length");
    TrafficKeys::tls13(&Ring, Suite::Aes128Gcm, secret).expect("keys")
}

/// The server's first record was a NewSessionTicket.
const DIRECTIONS: [(&str, u64, &str, &str); 2] =
    [(CLIENT_SECRET, 0, CLIENT_DATA, CLIENT_ALERT), (SERVER_SECRET, 1, SERVER_DATA, SERVER_ALERT)];

#[test]
fn records_are_opened() {
    for (secret, number, data, alert) in DIRECTIONS {
        let mut receiver = Receiver::new(keys(secret).assume(number, 0), Role::Server);
        let mut record = bytes(data);
        assert_eq!(receiver.record_bytes(&record), Ok(Some(72)));
        assert_eq!(receiver.open(&Ring, &mut record), Ok(Content::Data(5..55)));
        assert_eq!(record[5..55], (0..50).collect::<Vec<u8>>());
        assert_eq!(receiver.open(&Ring, &mut bytes(alert)), Ok(Content::CloseNotify));
    }
}

#[test]
fn records_are_sealed() {
    for (secret, number, data, alert) in DIRECTIONS {
        let mut sender = Sender::new(keys(secret).assume(number, 0));
        let mut out = Vec::new();
        let text: Vec<u8> = (0..50).collect();
        sender.seal_data(&Ring, &text, &mut out).expect("sealed");
        assert_eq!(out, bytes(data));
        out.clear();
        sender.seal_close_notify(&Ring, &mut out).expect("sealed");
        assert_eq!(out, bytes(alert));
    }
}

#[test]
fn numbers_are_found() {
    for (secret, number, data, alert) in DIRECTIONS {
        let proved = keys(secret).prove(&Ring, &bytes(data), 0..=3).expect("proved").0;
        let mut receiver = Receiver::new(proved, Role::Client);
        assert_eq!(receiver.open(&Ring, &mut bytes(alert)), Ok(Content::CloseNotify));
        assert!(keys(secret).prove(&Ring, &bytes(data), number + 1..=9).is_err());
    }
}
