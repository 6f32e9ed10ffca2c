//! What several tests need: the echo API, compiled, and a caller for it.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its own part")]

use std::path::Path;
use std::sync::OnceLock;

use longhaul_core::Error;
use longhaul_wire::http_rule::{HttpRule, Router};
use longhaul_wire::message::{Descriptors, MessageType};

/// Compiles one file of `tests/schema` with its imports.
pub fn compile(file: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schema");
    let mut compiler = protox::Compiler::new([root]).unwrap();
    compiler.include_imports(true).open_file(file).unwrap();
    compiler.encode_file_descriptor_set()
}

/// Compiles a text as the file `test.proto`, with the well-known types at hand.
pub fn compile_text(text: &str) -> Vec<u8> {
    let folder = std::env::temp_dir().join(format!(
        "longhaul-wire-{}-{:x}",
        std::process::id(),
        text.bytes().fold(5_381_u64, |hash, byte| hash.wrapping_mul(33) ^ u64::from(byte))
    ));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("test.proto"), text).unwrap();
    let mut compiler = protox::Compiler::new([&folder]).unwrap();
    compiler.include_imports(true).open_file("test.proto").unwrap();
    let set = compiler.encode_file_descriptor_set();
    std::fs::remove_dir_all(&folder).unwrap();
    set
}

/// The echo API of `tests/schema/echo.proto`.
pub struct Echo {
    pub descriptors: Descriptors,
    pub router: Router<(HttpRule, MessageType)>,
}

pub fn echo() -> &'static Echo {
    static ECHO: OnceLock<Echo> = OnceLock::new();
    ECHO.get_or_init(|| {
        let descriptors = Descriptors::parse(&compile("echo.proto")).unwrap();
        let mut router = Router::new();
        let service = descriptors.service("longhaul.test.v1.Echo").unwrap();
        for method in service.methods() {
            for rule in method.http_rules().unwrap() {
                rule.check(&method.input(), &method.output()).unwrap();
                router.insert(&rule, (rule.clone(), method.input())).unwrap();
            }
        }
        Echo { descriptors, router }
    })
}

/// The type of this short name in the echo API.
pub fn echo_type(short_name: &str) -> MessageType {
    echo().descriptors.message(&format!("longhaul.test.v1.{short_name}")).unwrap()
}

/// An error as one line per fault: `REASON message` and ` · field: description`.
pub fn print_error(error: &Error) -> String {
    let mut text = format!("{} {}", error.reason.name(), error.message);
    for violation in &error.violations {
        text.push_str(&format!("\n  at {:?}: {}", violation.field, violation.description));
    }
    text
}
