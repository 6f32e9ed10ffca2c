//! Compiles our own API's proto files: types, client and server code, and the descriptor set that
//! the dynamic side loads. Needs no program beside the compiler.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;
use protox::prost_reflect::prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", proto.display());

    let mut compiler = protox::Compiler::new([&proto])?;
    compiler.include_imports(true).include_source_info(true);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(proto.join("longhaul/v1"))? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    compiler.open_files(files)?;
    let with_comments: FileDescriptorSet = compiler.file_descriptor_set();

    let mut served = with_comments.clone();
    for file in &mut served.file {
        file.source_code_info = None;
    }
    std::fs::write(out.join("longhaul_v1.binpb"), served.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(with_comments)?;
    Ok(())
}
