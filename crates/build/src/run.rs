//! `RUN`: a command in a container, whose changes become a layer.

use dockerfile::{Command, Run};

use crate::changes::{command_line, shell};
use crate::stage::{Build, env_names};
use crate::{Error, Event, RunStep};

pub fn run(build: &mut Build<'_>, instruction: &Run) -> Result<(), Error> {
    refuse_unsupported(instruction)?;
    let words = words(build, instruction)?;
    let names = env_names(&build.state.config.env);
    let (declared, predefined) = build.arguments.for_commands(&|name| names.contains_key(name));
    let mut created_by = words.clone();
    if !declared.is_empty() {
        // Arguments count for the cache like the command itself.
        let mut front = vec![format!("|{}", declared.len())];
        front.extend(declared.iter().cloned());
        front.append(&mut created_by);
        created_by = front;
    }
    let created_by = created_by.join(" ");
    let config = build.state.config.clone();
    if let Some(image) = build.cached(&created_by, &config) {
        build.use_cached(image);
        return Ok(());
    }
    let mut container_config = config;
    container_config.env.extend(declared);
    container_config.env.extend(predefined);
    let command = words.join(" ");
    container_config.cmd = Some(words);
    container_config.entrypoint = None;
    container_config.healthcheck = None;
    let network = instruction.network.clone().unwrap_or_else(|| build.options.network.clone());
    let network = if network.is_empty() { "default".to_owned() } else { network };
    let image = build.state.image.clone();
    let step = RunStep { image: image.as_ref(), config: &container_config, network: &network };
    let container = build.executor.create(&step).map_err(Error::Executor)?;
    build.text(&format!(" ---> Running in {}\n", short(&container)));
    let outcome = in_container(build, &container, &command, &created_by);
    let keep = if outcome.is_ok() {
        !build.options.remove && !build.options.force_remove
    } else {
        !build.options.force_remove
    };
    if keep {
        return outcome;
    }
    let removed = build.executor.remove(&container).map_err(Error::Executor);
    outcome?;
    removed?;
    build.text(&format!(" ---> Removed intermediate container {}\n", short(&container)));
    Ok(())
}

fn in_container(
    build: &mut Build<'_>,
    container: &str,
    command: &str,
    created_by: &str,
) -> Result<(), Error> {
    let executor = build.executor;
    let output = build.output();
    let code = executor
        .run(container, &mut |stream, bytes| output(Event::Output(stream, bytes)))
        .map_err(Error::Executor)?;
    if code != 0 {
        return Err(Error::ExitCode { command: command.to_owned(), code });
    }
    let images = &build.builder.images;
    let parent = build.state.image.clone();
    // A container that is kept needs its layer; one that goes gives it away.
    let keeps_layer = !build.options.remove && !build.options.force_remove;
    let layer = if keeps_layer {
        images.maker().pack_container(container, &mut build.pins)?
    } else {
        images.maker().adopt_container(container, parent.as_deref(), &mut build.pins)?
    };
    build.commit(created_by.to_owned(), Some(layer))
}

fn refuse_unsupported(instruction: &Run) -> Result<(), Error> {
    const BUILDKIT: &str = "requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled";
    if !instruction.mounts.is_empty() {
        return Err(Error::Invalid(format!("the --mount option {BUILDKIT}")));
    }
    if instruction.security.as_deref().is_some_and(|mode| mode != "sandbox") {
        return Err(Error::Invalid(format!("the --security option {BUILDKIT}")));
    }
    if !instruction.devices.is_empty() {
        return Err(Error::Invalid(format!("the --device option {BUILDKIT}")));
    }
    match instruction.network.as_deref() {
        None | Some("" | "default" | "none" | "host") => Ok(()),
        Some(other) => Err(Error::Invalid(format!("invalid network mode {other:?}"))),
    }
}

/// The command line. A heredoc alone is the script itself; one in a command line is left to the shell.
fn words(build: &Build<'_>, instruction: &Run) -> Result<Vec<String>, Error> {
    let config = &build.state.config;
    let Command::Shell(line) = &instruction.command else {
        return Ok(command_line(&instruction.command, config));
    };
    let Some(first) = instruction.heredocs.first() else {
        return Ok(command_line(&instruction.command, config));
    };
    let mut words = shell(config);
    let alone =
        instruction.heredocs.len() == 1 && line.starts_with("<<") && !line.contains(char::is_whitespace);
    if alone {
        if first.content.starts_with("#!") {
            return Err(Error::NotImplemented("a script with its own interpreter in RUN".into()));
        }
        words.push(first.content.clone());
        return Ok(words);
    }
    let mut script = line.clone();
    for heredoc in &instruction.heredocs {
        script.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
    }
    words.push(script);
    Ok(words)
}

fn short(container: &str) -> &str {
    container.get(..12).unwrap_or(container)
}
