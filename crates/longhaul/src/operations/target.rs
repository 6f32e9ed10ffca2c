//! Whom to ask and where: server, API, token, and from short names to full ones.

use std::io::Read as _;

use longhaul_client::operations::{Client, ListOptions};

use super::args::TargetArgs;
use super::list;
use crate::failure::{Exit, Failure};

/// Most bytes of names read from standard input.
const INPUT_BYTES_MAX: u64 = 16 << 20;

/// A server, one of its APIs where that was said, and a place.
#[derive(Clone, Debug)]
pub struct Target {
    /// Asks it.
    pub client: Client,
    /// The API as it was said.
    pub api: Option<String>,
    /// A client before any API was chosen.
    any: Client,
    server: String,
    project: Option<String>,
    location: Option<String>,
    region: Option<String>,
}

/// An operation by its full name, and who knows it.
#[derive(Clone, Debug)]
pub struct Named {
    /// Full name.
    pub name: String,
    /// Asks the API that has it.
    pub client: Client,
    /// The API's short name, where it is known.
    pub api: Option<String>,
}

impl Target {
    /// Reads the arguments, the token's file or variable too.
    pub fn new(args: &TargetArgs) -> Result<Self, Failure> {
        let credentials = args.credentials.read()?;
        let client = Client::connect_with(&args.server, &credentials)?;
        let client = client.with_version(&args.api_version)?;
        let mut target = Self {
            any: client.clone(),
            client,
            api: None,
            server: args.server.clone(),
            project: args.project.clone(),
            location: args.location.clone(),
            region: args.region.clone(),
        };
        for (flag, place) in [
            ("--project", &target.project),
            ("--location", &target.location),
            ("--region", &target.region),
        ] {
            if place.as_deref().is_some_and(|place| place.is_empty() || place.contains('/')) {
                return Err(Failure::usage(format!("{flag} takes an id without slashes")));
            }
        }
        if let Some(api) = &args.api {
            target.choose(api)?;
        }
        Ok(target)
    }

    /// Asks the server itself, whichever API was chosen.
    pub const fn server(&self) -> &Client {
        &self.any
    }

    /// Asks this API from now on.
    pub fn choose(&mut self, api: &str) -> Result<(), Failure> {
        self.client = self.any.clone();
        // Google's own hosts have one API each, and no prefix.
        if !self.server.contains(".googleapis.com") {
            self.client = self.any.clone().with_api(api)?;
        }
        self.api = Some(api.to_owned());
        Ok(())
    }

    /// The parents whose operations are meant; a place that was not said is every place.
    pub fn parents(&self) -> Vec<String> {
        let project = self.project.as_deref().unwrap_or("-");
        let under =
            |collection: &str, place: &str| format!("projects/{project}/{collection}/{place}");
        if let Some(region) = &self.region {
            return vec![under("regions", region)];
        }
        match &self.location {
            Some(location) => vec![under("locations", location)],
            None if self.has_regions() => vec![under("regions", "-"), under("locations", "-")],
            None => vec![under("locations", "-")],
        }
    }

    /// Whether the API keeps operations under regions, too.
    fn has_regions(&self) -> bool {
        self.api.as_deref().is_some_and(|api| api.starts_with("dataproc"))
    }

    /// The operations that the arguments name, in their order; `-` stands for standard input.
    pub async fn find_all(&self, names: &[String]) -> Result<Vec<Named>, Failure> {
        let mut found: Vec<Named> = Vec::new();
        for name in names {
            let several = if name == "-" { from_input()? } else { vec![name.clone()] };
            for name in several {
                let one = self.find(&name).await?;
                if !found.iter().any(|known| known.name == one.name) {
                    found.push(one);
                }
            }
        }
        if found.is_empty() {
            return Err(Failure::usage("no operation was named"));
        }
        Ok(found)
    }

    /// The operation of a full name or of an id alone.
    pub async fn find(&self, name: &str) -> Result<Named, Failure> {
        let name = name.trim();
        let named =
            |name: String| Named { name, client: self.client.clone(), api: self.api.clone() };
        if name.contains('/') {
            return Ok(named(name.to_owned()));
        }
        let parents = self.parents();
        match parents.as_slice() {
            [parent] if !parent.contains("/-") => Ok(named(format!("{parent}/operations/{name}"))),
            _ => self.search(name).await,
        }
    }

    /// Looks for an id in every place that fits.
    async fn search(&self, id: &str) -> Result<Named, Failure> {
        let options = ListOptions { filter: by_id(id), ..ListOptions::default() };
        let found = list::everywhere(self, &options, usize::MAX).await?;
        let mut fitting = found
            .operations
            .into_iter()
            .filter(|(operation, _)| operation.name().rsplit('/').next() == Some(id));
        match (fitting.next(), fitting.next()) {
            (Some((operation, api)), None) => {
                let mut target = self.clone();
                if let Some(api) = &api {
                    target.choose(api)?;
                }
                Ok(Named { name: operation.name().to_owned(), client: target.client, api })
            }
            (Some((one, _)), Some((two, _))) => Err(Failure::usage(format!(
                "several operations have the id {id:?}, such as {} and {}",
                one.name(),
                two.name()
            ))
            .help("give the full name, or --api, --project and --location")),
            (None, _) => Err(Failure::new(Exit::Failed, format!("there is no operation {id:?}"))
                .help("\"longhaul operations list\" shows what there is; ids need --project and --location on servers that cannot search all places")),
        }
    }
}

/// A filter that finds an operation by its id.
fn by_id(id: &str) -> String {
    let quoted = id.replace('\\', "\\\\").replace('"', "\\\"");
    format!("name = \"*/{quoted}\"")
}

fn from_input() -> Result<Vec<String>, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::CredentialArgs;

    fn target(
        project: Option<&str>,
        location: Option<&str>,
        region: Option<&str>,
        api: Option<&str>,
    ) -> Target {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let args = TargetArgs {
            server: "http://127.0.0.1:1".to_owned(),
            api: owned(api),
            api_version: "v1".to_owned(),
            credentials: CredentialArgs::default(),
            project: owned(project),
            location: owned(location),
            region: owned(region),
        };
        Target::new(&args).unwrap()
    }

    #[test]
    fn a_place_that_is_not_said_is_every_place() {
        let all = |target: Target| target.parents().join(" ");
        assert_eq!(all(target(None, None, None, None)), "projects/-/locations/-");
        assert_eq!(all(target(Some("p"), Some("l"), None, None)), "projects/p/locations/l");
        assert_eq!(all(target(Some("p"), None, Some("r"), None)), "projects/p/regions/r");
        assert_eq!(
            all(target(Some("p"), None, None, Some("dataproc"))),
            "projects/p/regions/- projects/p/locations/-"
        );
    }

    #[tokio::test]
    async fn a_name_is_full_or_an_id_in_a_known_place() {
        let known = target(Some("p"), Some("l"), None, Some("clouddeploy"));
        let find = async |name: &str| known.find(name).await.unwrap().name;
        assert_eq!(find("o").await, "projects/p/locations/l/operations/o");
        assert_eq!(
            find("projects/x/locations/y/operations/o").await,
            "projects/x/locations/y/operations/o"
        );
        assert_eq!(find(" operations/o\n").await, "operations/o");
    }

    #[test]
    fn an_id_cannot_leave_its_quotes() {
        assert_eq!(by_id("a\" OR name = \"b"), "name = \"*/a\\\" OR name = \\\"b\"");
    }
}
