# What people do here by hand; `.ci/run` is what machines do.

# List the recipes.
default:
    @just --list

# Everything but the slow part: format, lints, tests, tidy. Run before each commit.
verify:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace
    cargo xtask tidy

# A server to try things on: loopback, no credentials, a practice worker.
dev *FLAGS:
    cargo run --release -- dev {{FLAGS}}

# Google's own clients against a release build.
conformance *SUITES:
    ./conformance/run {{SUITES}}

# Write docs/errors.md again.
errors:
    cargo xtask errors

# Make the bundled descriptor sets again, byte for byte.
codegen *FLAGS:
    cargo xtask codegen {{FLAGS}}

# What continuous integration runs.
ci:
    bash .ci/run
