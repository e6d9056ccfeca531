//! `login` and `logout`.

use std::io::{BufRead, Read, Write};

use api_client::Request;
use api_types::registry::{AuthConfig, AuthResponse};

use crate::app::App;
use crate::args::Matches;
use crate::credentials::{self, HUB};
use crate::fail::Fail;
use crate::output::out;
use crate::term;

pub async fn login(app: &App, matches: &Matches) -> Result<(), Fail> {
    let server = matches.args.first().map(String::as_str).unwrap_or_default();
    let key = credentials::key_of(server);
    let given = given(matches)?;
    let mut store = app.credentials()?;
    if std::env::var("DOCKER_AUTH_CONFIG").is_ok_and(|text| !text.is_empty()) {
        eprintln!("WARNING: DOCKER_AUTH_CONFIG is set and takes precedence over what is stored.");
    }
    let auth = match given {
        Some(auth) => auth,
        None => {
            if let Some(known) = store.get(&key)?.filter(|_| matches.str("username").is_empty()) {
                out("Authenticating with existing credentials...\n");
                match ask(app, &known, &key).await {
                    Ok(answer) => return finish(&mut store, &key, known, answer),
                    Err(fail) if fail.status == Some(401) => {
                        eprintln!("Login did not succeed, error: {}", fail.text);
                    }
                    Err(fail) => return Err(fail),
                }
            }
            prompted(matches.str("username"), &key)?
        }
    };
    let answer = ask(app, &auth, &key).await?;
    finish(&mut store, &key, auth, answer)
}

/// What the command line says, if it says all.
fn given(matches: &Matches) -> Result<Option<AuthConfig>, Fail> {
    let (user, password) = (matches.str("username"), matches.str("password"));
    let from_stdin = matches.bool("password-stdin") || password == "-";
    if !password.is_empty() && password != "-" {
        eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        if matches.bool("password-stdin") {
            return Err(Fail::text("--password and --password-stdin are mutually exclusive"));
        }
    }
    if from_stdin && user.is_empty() {
        return Err(Fail::text("Must provide --username with --password-stdin"));
    }
    let password = match from_stdin {
        true => {
            let mut text = String::new();
            std::io::stdin().take(1 << 20).read_to_string(&mut text)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        false => password.to_owned(),
    };
    if from_stdin && password.is_empty() {
        return Err(Fail::text("password is empty"));
    }
    let whole = !user.is_empty() && !password.is_empty();
    Ok(whole.then(|| AuthConfig { username: user.to_owned(), password, ..AuthConfig::default() }))
}

/// Asks the user on the terminal.
fn prompted(user: &str, key: &str) -> Result<AuthConfig, Fail> {
    if !term::stdin_is_terminal() {
        return Err(Fail::text("Error: Cannot perform an interactive login from a non TTY device"));
    }
    let username = match user {
        "" => {
            if key == HUB {
                out("Log in with your Docker ID or email address to push and pull images from Docker Hub.\n");
            }
            ask_line("Username: ")?
        }
        user => user.to_owned(),
    };
    if username.is_empty() {
        return Err(Fail::text("Error: Non-null Username Required"));
    }
    let password = {
        let _hidden = term::Hidden::stdin()?;
        ask_line("Password: ")?
    };
    out("\n");
    if password.is_empty() {
        return Err(Fail::text("Error: Password Required"));
    }
    Ok(AuthConfig { username, password, ..AuthConfig::default() })
}

fn ask_line(prompt: &str) -> Result<String, Fail> {
    out(prompt);
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

async fn ask(app: &App, auth: &AuthConfig, key: &str) -> Result<AuthResponse, Fail> {
    let body = AuthConfig { serveraddress: key.to_owned(), ..auth.clone() };
    Ok(app.client().await?.json(Request::post("/auth").json(&body)?).await?)
}

fn finish(
    store: &mut credentials::Credentials,
    key: &str,
    mut auth: AuthConfig,
    answer: AuthResponse,
) -> Result<(), Fail> {
    if !answer.identity_token.is_empty() {
        // The token stands for the password, which need not be kept.
        auth.password.clear();
        auth.identitytoken = answer.identity_token;
    }
    store.store(key, &auth)?;
    if store.is_plain(key) {
        eprintln!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this \
             warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            store.path().display()
        );
    }
    out(&format!("{}\n", answer.status));
    Ok(())
}

pub async fn logout(app: &App, matches: &Matches) -> Result<(), Fail> {
    let server = matches.args.first().map(String::as_str).unwrap_or_default();
    let key = credentials::key_of(server);
    out(&format!("Removing login credentials for {key}\n"));
    if let Err(fail) = app.credentials()?.erase(&key) {
        eprintln!("WARNING: could not erase credentials:\n{key}: {}", fail.text);
    }
    Ok(())
}
