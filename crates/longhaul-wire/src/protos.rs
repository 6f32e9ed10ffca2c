//! A folder of `.proto` files, compiled in process to the descriptor set that an API is loaded from.
//!
//! Imports of `google/api`, `google/longrunning`, `google/rpc`, `google/type` and `google/protobuf`
//! need no files: they come with the program. Runs no other program.

use std::path::{Path, PathBuf};

use longhaul_core::{Error, Reason};
use protox::Compiler;
use protox::file::{
    ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver,
};

use crate::bundled;

/// Most `.proto` files in one folder; all of Google's public ones are below 10,000.
const FILES_MAX: usize = 10_000;
/// Deepest folder that is looked into.
const DEPTH_MAX: usize = 32;

/// Compiles every `.proto` file below a folder to an encoded `FileDescriptorSet`, imports included.
///
/// The folder is the root of import paths. Blocks on reading files. Fails with `API_INVALID` when the
/// folder cannot be read, holds no `.proto` file, or a file does not compile; the message says where.
pub fn compile_protos(folder: &Path) -> Result<Vec<u8>, Error> {
    let mut files = Vec::new();
    collect(folder, Path::new(""), 0, &mut files)?;
    if files.is_empty() {
        return Err(invalid(
            folder,
            "holds no .proto file; give the folder that import paths start from",
        ));
    }
    files.sort();
    let common = DescriptorSetFileResolver::decode(bundled::common_descriptor_set())
        .map_err(|error| invalid(folder, &format!("apis/common cannot be read: {error}")))?;
    let mut resolver = ChainFileResolver::new();
    resolver.add(GoogleFileResolver::new());
    resolver.add(common);
    resolver.add(IncludeFileResolver::new(folder.to_owned()));
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(false);
    for file in files {
        // The debug form of the compiler's errors names file, line and column.
        compiler.open_file(&file).map_err(|error| invalid(folder, &format!("{error:?}")))?;
    }
    Ok(compiler.encode_file_descriptor_set())
}

/// Names of `.proto` files relative to the root, with slashes; hidden folders are left out.
fn collect(root: &Path, below: &Path, depth: usize, files: &mut Vec<String>) -> Result<(), Error> {
    let folder = root.join(below);
    let unreadable = |error: std::io::Error| {
        invalid(root, &format!("{} cannot be read: {error}", folder.display()))
    };
    for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = PathBuf::from(entry.file_name());
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let path = below.join(&name);
        // Follows links: whoever gives the folder chose what is in it. Depth bounds circles.
        let kind = std::fs::metadata(entry.path()).map_err(unreadable)?;
        if kind.is_dir() && depth < DEPTH_MAX {
            collect(root, &path, depth + 1, files)?;
        } else if kind.is_file() && name.extension().is_some_and(|extension| extension == "proto") {
            let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
            files.push(parts.join("/"));
        }
        if files.len() > FILES_MAX {
            return Err(invalid(root, &format!("holds more than {FILES_MAX} .proto files")));
        }
    }
    Ok(())
}

fn invalid(folder: &Path, why: &str) -> Error {
    let folder = folder.display().to_string();
    Error::new(Reason::ApiInvalid, format!("{folder}: {why}"))
        .with("file", folder)
        .with("cause", why)
}
