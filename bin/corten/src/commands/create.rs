//! `create`, and making the container of `run`: pull by policy, proxies, the ID file.

use api_client::{Client, Request};
use api_types::container::{ContainerCreate, ContainerCreateResponse};

use crate::app::App;
use crate::args::Matches;
use crate::fail::Fail;
use crate::opts::reference;
use crate::output;

/// The file that takes the ID of a new container. It must be new, and goes away again if no container was made.
#[derive(Debug)]
struct IdFile<'a> {
    path: &'a str,
    written: bool,
}

impl<'a> IdFile<'a> {
    fn new(path: &'a str) -> Result<Option<Self>, Fail> {
        if path.is_empty() {
            return Ok(None);
        }
        if std::path::Path::new(path).exists() {
            return Err(Fail::text(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            )));
        }
        let failed = |error: std::io::Error| {
            Fail::text(format!(
                "failed to create the container ID file: open {path}: {}",
                crate::opts::kv::describe(&error)
            ))
        };
        std::fs::File::create(path).map_err(failed)?;
        Ok(Some(Self { path, written: false }))
    }

    fn write(&mut self, id: &str) -> Result<(), Fail> {
        std::fs::write(self.path, id).map_err(|error| {
            Fail::text(format!(
                "failed to write the container ID ({id}) to file: {}",
                crate::opts::kv::describe(&error)
            ))
        })?;
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        if !self.written {
            let _ = std::fs::remove_file(self.path);
        }
    }
}

/// `create`: prints the ID.
pub async fn command(app: &App, mut matches: Matches) -> Result<(), Fail> {
    let path = app.path.join(" ");
    let help = |fail: Fail| fail.with_help(app.program, &path).code(125);
    check_pull(&matches).map_err(help)?;
    let body = body(app, &mut matches).map_err(help)?;
    let client = app.client().await?;
    let id = create(app, client, &body, &matches).await?;
    output::out(&format!("{id}\n"));
    Ok(())
}

pub fn check_pull(matches: &Matches) -> Result<(), Fail> {
    match matches.str("pull") {
        "" | "always" | "missing" | "never" => Ok(()),
        other => Err(Fail::text(format!(
            "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
        ))),
    }
}

/// The body of the request, with the proxies that the configuration gives every container.
pub fn body(app: &App, matches: &mut Matches) -> Result<ContainerCreate, Fail> {
    let mut body = crate::opts::container::create(matches)?;
    let proxies = app.proxies()?;
    for (name, value) in proxies {
        let env = body.config.env.get_or_insert_default();
        if !env.iter().any(|known| known.split('=').next() == Some(&name)) {
            env.push(format!("{name}={value}"));
        }
    }
    if let (true, Some((rows, columns)), Some(host)) =
        (body.config.tty, crate::term::size(), body.host_config.as_mut())
    {
        host.console_size = [rows.into(), columns.into()];
    }
    Ok(body)
}

/// Makes the container and returns its ID. An image that is missing is pulled, unless the policy says otherwise.
pub async fn create(
    app: &App,
    client: &Client,
    body: &ContainerCreate,
    matches: &Matches,
) -> Result<String, Fail> {
    let image = &body.config.image;
    let bare_id = image.len() == 64 && image.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !bare_id {
        reference::check(image).map_err(Fail::text)?;
    }
    let mut id_file = IdFile::new(matches.str("cidfile"))?;
    let platform = matches.str("platform");
    let quiet = matches.bool("quiet");
    if !platform.is_empty() {
        super::transfer::platform_json(platform).map_err(|_| {
            let shown = template::quote(platform);
            Fail::text(format!(
                "error parsing specified platform: {shown}: cannot parse platform specifier: invalid argument"
            ))
        })?;
    }
    if matches.str("pull") == "always" {
        crate::commands::pull::pull(app, client, image, platform, quiet, output::Which::Stderr).await?;
    }
    let request = || -> Result<Request, Fail> {
        let mut request = Request::post("/containers/create");
        if !matches.str("name").is_empty() {
            request = request.query("name", matches.str("name"));
        }
        if !platform.is_empty() {
            request = request.query("platform", platform);
        }
        Ok(request.json(body)?)
    };
    let made = match client.json::<ContainerCreateResponse>(request()?).await {
        Err(error)
            if error.is_not_found()
                && matches!(matches.str("pull"), "" | "missing")
                && is_missing_image(&error) =>
        {
            if !quiet {
                eprintln!("Unable to find image '{}' locally", reference::familiar(image));
            }
            crate::commands::pull::pull(app, client, image, platform, quiet, output::Which::Stderr).await?;
            client.json(request()?).await?
        }
        result => result?,
    };
    for warning in &made.warnings {
        eprintln!("WARNING: {warning}");
    }
    if let Some(file) = &mut id_file {
        file.write(&made.id)?;
    }
    Ok(made.id)
}

/// Other things that a container names may be missing as well; only an image can be pulled.
fn is_missing_image(error: &api_client::Error) -> bool {
    error.to_string().to_lowercase().contains("no such image")
}
