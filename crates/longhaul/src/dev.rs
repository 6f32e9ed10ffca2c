//! `longhaul dev`: a server on loopback with a worker that practises, ready in a moment.

mod access;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use longhaul_client::worker::{Grpc, Options, Worker};
use longhaul_server::Config;
use longhaul_server::config::ApiConfig;
use longhaul_wire::api::Api;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::DevArgs;
use crate::dev::access::Access;
use crate::failure::{Exit, Failure};
use crate::practice::Practice;
use crate::version::VERSION;
use crate::{output, serve};

/// Operations that the practice worker runs at once; each costs a few hundred bytes.
const SLOTS: usize = 50_000;

/// How long operations wait for a practice worker that was killed. Half of a worker's default: people
/// who kill a server to see what happens do not like to wait.
const LEASE: Duration = Duration::from_secs(15);

/// Serves until a signal.
pub fn run(args: DevArgs) -> Result<Exit, Failure> {
    let began = Instant::now();
    let mut config = config(&args)?;
    serve::on_all_threads(async move {
        // Accounts and hints name the port, so it has to be known before there is a server.
        let socket = serve::bind(config.listen).await?;
        let access = Access::prepare(&args, socket.local_addr()?)?;
        access.configure(&mut config);
        let running = serve::start_on(config, Some(socket)).await?;
        let address = running.address();
        let apis = running.apis();
        let shutdown = CancellationToken::new();
        let worker = if args.no_practice { None } else { Some(worker(&args, &access, &apis)?) };
        let worker = worker.map(|worker| tokio::spawn(worker.run(shutdown.clone())));
        serve::write_port(args.port_file.as_deref(), address)?;
        output::print(&banner(&args, &access, &apis, began.elapsed()))?;
        let stop = async {
            shutdown.cancel();
            if let Some(worker) = worker {
                match worker.await {
                    Ok(Ok(())) => tracing::debug!("the practice worker has given everything back"),
                    Ok(Err(error)) => tracing::error!(%error, "the practice worker ended"),
                    Err(error) => tracing::error!(%error, "the practice worker broke"),
                }
            }
            running.stop().await;
        };
        tokio::select! {
            ended = serve::until_signal(stop) => ended,
            () = access.keep_token() => Ok(Exit::Done),
        }
    })
}

fn config(args: &DevArgs) -> Result<Config, Failure> {
    let added = args.api_descriptor.len() + args.proto.len();
    if args.service_config.len() > added {
        return Err(Failure::usage(
            "there are more --service-config than --api-descriptor and --proto to go with",
        ));
    }
    let mut configs = args.service_config.iter().cloned();
    let mut api = |descriptor_set: Option<&PathBuf>, proto: Option<&PathBuf>| ApiConfig {
        descriptor_set: descriptor_set.cloned(),
        proto: proto.cloned(),
        service_config: configs.next(),
        ..ApiConfig::default()
    };
    let mut config = Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
        data: args.data.clone(),
        ..Config::default()
    };
    config.store.url.clone_from(&args.store);
    for file in &args.api_descriptor {
        config.apis.push(api(Some(file), None));
    }
    for folder in &args.proto {
        config.apis.push(api(None, Some(folder)));
    }
    Ok(config)
}

/// The practice worker: an ordinary client of the server, over its own port.
fn worker(args: &DevArgs, access: &Access, apis: &[Arc<Api>]) -> Result<Worker, Failure> {
    let options = Options {
        name: format!("practice/{}", std::process::id()),
        slots: SLOTS,
        lease: LEASE,
        grace: Duration::from_secs(1),
        ..Options::default()
    };
    let handler = Practice::new(apis, args.duration, args.cancel_delay);
    Grpc::connect_with(&access.url, &access.credentials()?)
        .and_then(|link| Worker::new(options, link, handler))
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

/// What to know, and one command to try.
fn banner(args: &DevArgs, access: &Access, apis: &[Arc<Api>], took: Duration) -> String {
    let data = match (&args.data, &args.store) {
        (Some(folder), _) => format!("data in {}", folder.display()),
        // Its address may hold a password.
        (None, Some(_)) => "data in PostgreSQL".to_owned(),
        (None, None) => "data in memory (--data DIR keeps it)".to_owned(),
    };
    let (url, took) = (&access.url, took.as_secs_f64());
    let titles: Vec<&str> = apis.iter().map(|api| api.title().trim_end_matches(" API")).collect();
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "  Longhaul {VERSION} · ready in {took:.2} s · everything on {url} · {data}"
    );
    let _ = writeln!(text, "  APIs     {}", titles.join(" · "));
    let worker = if args.no_practice {
        "none: operations wait for yours, such as longhaul worker --api clouddeploy …".to_owned()
    } else {
        let (duration, delay) = (span(args.duration), span(args.cancel_delay));
        format!(
            "practises: {duration} for an operation, {delay} to stop one (--duration, --cancel-delay)"
        )
    };
    let _ = writeln!(text, "  Worker   {worker}");
    for (word, what) in access.lines() {
        let _ = writeln!(text, "  {word:<8} {what}");
    }
    let _ = writeln!(
        text,
        "  Try      curl {}-d '{{}}' '{url}/clouddeploy/v1/projects/{}/locations/us-central1/deliveryPipelines?deliveryPipelineId=first'",
        access.curl_flags(),
        access.project,
    );
    let mut server = String::new();
    if !access.is_open() {
        let _ = writeln!(text, "           {}", access.env_command());
    } else if args.port != 7151 {
        server = format!(" --server {url}");
    }
    let _ = writeln!(text, "           longhaul operations list{server}");
    text
}

/// A span as a flag would take it.
fn span(span: Duration) -> String {
    if span.subsec_millis() == 0 {
        format!("{}s", span.as_secs())
    } else {
        format!("{}ms", span.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::DevAuth;

    fn args() -> DevArgs {
        DevArgs {
            port: 0,
            port_file: None,
            data: None,
            store: None,
            auth: DevAuth::Off,
            auth_dir: "longhaul-auth".into(),
            tls: false,
            tls_dir: "longhaul-tls".into(),
            duration: Duration::from_secs(10),
            cancel_delay: Duration::from_millis(500),
            no_practice: false,
            proto: vec!["protos".into()],
            api_descriptor: vec!["a.binpb".into(), "b.binpb".into()],
            service_config: vec!["a.yaml".into()],
        }
    }

    #[test]
    fn added_apis_come_after_the_bundled_ones_each_with_its_configuration() {
        let config = config(&args()).unwrap();
        assert!(config.listen.ip().is_loopback());
        let added: Vec<_> = config.apis.iter().filter(|api| api.bundle.is_none()).collect();
        assert_eq!(added.len(), 3);
        assert_eq!(added[0].service_config, Some("a.yaml".into()));
        assert_eq!((&added[1].service_config, &added[2].proto), (&None, &Some("protos".into())));
        let url = "postgres://me:secret@db/test".to_owned();
        let shared = super::config(&DevArgs { store: Some(url.clone()), ..args() }).unwrap();
        assert_eq!((shared.store.url, shared.data), (Some(url), None));
        let too_many = DevArgs { service_config: vec!["x".into(); 4], ..args() };
        assert_eq!(super::config(&too_many).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn the_banner_says_where_what_and_how_to_begin() {
        let address = SocketAddr::from(([127, 0, 0, 1], 4711));
        let apis = longhaul_wire::bundled::load_all().unwrap();
        let access = Access::prepare(&args(), address).unwrap();
        let text = banner(&args(), &access, &apis, Duration::from_millis(60));
        for part in [
            "ready in 0.06 s",
            "http://127.0.0.1:4711",
            "in memory",
            "Dataproc",
            "10s",
            "500ms",
            "curl",
            "--server",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let shared = DevArgs { store: Some("postgres://me:secret@db/test".into()), ..args() };
        let text = banner(&shared, &access, &apis, Duration::from_millis(60));
        assert!(text.contains("in PostgreSQL") && !text.contains("secret"), "{text}");
    }
}
