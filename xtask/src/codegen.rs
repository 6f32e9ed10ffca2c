//! Makes the descriptor sets under `apis/` from one published package at one pinned version.
//!
//! Owns which proto files belong to which bundled API. Service configurations and settings beside the
//! descriptor sets are written by hand and never touched here.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use protox::Compiler;
use protox::file::{ChainFileResolver, GoogleFileResolver, IncludeFileResolver};

/// The package that holds the published definitions, and the digest that its registry gives it.
const PACKAGE: &str = "google-proto-files";
const PACKAGE_VERSION: &str = "5.0.3";
const PACKAGE_INTEGRITY: &str = "sha512-HrKG4IIPUHaU1E4+J8yETm41N39+pm9z+ZBERNcq+q8ltHRcFwTcxSviqJSuxPiZJNTWmdBhp03xcElCRlQPxA==";

/// One folder of `apis/` and the files that its descriptor set is made of, imports aside.
struct Set {
    folder: &'static str,
    files: &'static [&'static str],
}

const SETS: &[Set] = &[
    Set { folder: "clouddeploy", files: &["google/cloud/deploy/v1/cloud_deploy.proto"] },
    Set {
        folder: "privateca",
        files: &[
            "google/cloud/security/privateca/v1/resources.proto",
            "google/cloud/security/privateca/v1/service.proto",
        ],
    },
    Set {
        folder: "storagebatchoperations",
        files: &[
            "google/cloud/storagebatchoperations/v1/storage_batch_operations.proto",
            "google/cloud/storagebatchoperations/v1/storage_batch_operations_types.proto",
        ],
    },
    Set {
        folder: "dataproc",
        files: &[
            "google/cloud/dataproc/v1/autoscaling_policies.proto",
            "google/cloud/dataproc/v1/batches.proto",
            "google/cloud/dataproc/v1/clusters.proto",
            "google/cloud/dataproc/v1/jobs.proto",
            "google/cloud/dataproc/v1/node_groups.proto",
            "google/cloud/dataproc/v1/operations.proto",
            "google/cloud/dataproc/v1/session_templates.proto",
            "google/cloud/dataproc/v1/sessions.proto",
            "google/cloud/dataproc/v1/shared.proto",
            "google/cloud/dataproc/v1/workflow_templates.proto",
        ],
    },
    Set {
        folder: "cloudaicompanion",
        files: &["google/cloud/cloudaicompanion/v1/cloudaicompanion.proto"],
    },
    Set { folder: "common", files: COMMON },
];

/// What a user's own `.proto` files may import, and what every API's operations speak.
const COMMON: &[&str] = &[
    "google/api/annotations.proto",
    "google/api/client.proto",
    "google/api/error_reason.proto",
    "google/api/field_behavior.proto",
    "google/api/field_info.proto",
    "google/api/http.proto",
    "google/api/httpbody.proto",
    "google/api/label.proto",
    "google/api/launch_stage.proto",
    "google/api/monitored_resource.proto",
    "google/api/resource.proto",
    "google/api/routing.proto",
    "google/api/visibility.proto",
    "google/iam/v1/iam_policy.proto",
    "google/iam/v1/options.proto",
    "google/iam/v1/policy.proto",
    "google/longrunning/operations.proto",
    "google/protobuf/any.proto",
    "google/protobuf/api.proto",
    "google/protobuf/descriptor.proto",
    "google/protobuf/duration.proto",
    "google/protobuf/empty.proto",
    "google/protobuf/field_mask.proto",
    "google/protobuf/source_context.proto",
    "google/protobuf/struct.proto",
    "google/protobuf/timestamp.proto",
    "google/protobuf/type.proto",
    "google/protobuf/wrappers.proto",
    "google/rpc/code.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "google/type/calendar_period.proto",
    "google/type/color.proto",
    "google/type/date.proto",
    "google/type/datetime.proto",
    "google/type/dayofweek.proto",
    "google/type/decimal.proto",
    "google/type/expr.proto",
    "google/type/fraction.proto",
    "google/type/interval.proto",
    "google/type/latlng.proto",
    "google/type/localized_text.proto",
    "google/type/money.proto",
    "google/type/month.proto",
    "google/type/phone_number.proto",
    "google/type/postal_address.proto",
    "google/type/quaternion.proto",
    "google/type/timeofday.proto",
];

/// What `cargo xtask codegen` takes.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Compare with the committed files instead of writing them; fails when they differ.
    #[arg(long)]
    pub check: bool,
    /// An unpacked copy of the package, instead of fetching it with npm.
    #[arg(long, value_name = "DIR")]
    pub package: Option<PathBuf>,
}

/// Writes, or with `--check` compares, every descriptor set under `apis/`.
///
/// Fails when the package cannot be fetched or has another digest, when a file does not compile, or
/// when a check finds a difference.
pub fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let apis = Path::new(env!("CARGO_MANIFEST_DIR")).join("../apis").canonicalize()?;
    let fetched = tempfile::tempdir()?;
    let package = match &args.package {
        Some(folder) => folder.clone(),
        None => fetch(fetched.path())?,
    };
    let mut out = std::io::stdout().lock();
    let mut stale = Vec::new();
    for set in SETS {
        let bytes = compile(set, &apis, &package)?;
        let path = apis.join(set.folder).join("descriptor_set.binpb");
        let shown = format!("apis/{}/descriptor_set.binpb", set.folder);
        if args.check {
            let same = std::fs::read(&path).is_ok_and(|committed| committed == bytes);
            writeln!(out, "{} {shown}", if same { "same   " } else { "DIFFERS" })?;
            if !same {
                stale.push(shown);
            }
        } else {
            std::fs::write(&path, &bytes)?;
            writeln!(out, "wrote {shown}, {} bytes", bytes.len())?;
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    Err(format!("{} differ; run `cargo xtask codegen` and commit the result", stale.join(", "))
        .into())
}

/// Comments and positions are left out; imports are kept, so that a set stands alone.
fn compile(set: &Set, apis: &Path, package: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(GoogleFileResolver::new());
    resolver.add(IncludeFileResolver::new(apis.join(set.folder)));
    resolver.add(IncludeFileResolver::new(package.to_owned()));
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(false);
    for file in set.files {
        compiler.open_file(file).map_err(|error| format!("{}: {file}: {error}", set.folder))?;
    }
    Ok(compiler.encode_file_descriptor_set())
}

/// Fetches and unpacks the pinned package below `folder`; refuses one with another digest.
fn fetch(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let spec = format!("{PACKAGE}@{PACKAGE_VERSION}");
    let packed = run_in(folder, "npm", &["pack", "--json", "--silent", &spec])?;
    let listing: serde_json::Value = serde_json::from_slice(&packed)?;
    let integrity = listing[0]["integrity"].as_str().unwrap_or_default();
    if integrity != PACKAGE_INTEGRITY {
        return Err(
            format!("{spec} has the digest {integrity:?}, not {PACKAGE_INTEGRITY:?}").into()
        );
    }
    let file = listing[0]["filename"].as_str().ok_or("npm pack names no file")?;
    run_in(folder, "tar", &["-xzf", file])?;
    Ok(folder.join("package"))
}

fn run_in(folder: &Path, program: &str, args: &[&str]) -> Result<Vec<u8>, Box<dyn Error>> {
    let output = Command::new(program)
        .args(args)
        .current_dir(folder)
        .output()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {} failed: {}", args.join(" "), said.trim()).into())
}
