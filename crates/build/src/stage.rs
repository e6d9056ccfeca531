//! One build: its stages one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dockerfile::{Dockerfile, Instruction, Stage, Step, expand};
use images::{Images, NewImage, NewLayer, Pins, StoredImage};
use oci::{Config, Digest, Platform, Reference, Timestamp};

use crate::arguments::Arguments;
use crate::changes::env_value;
use crate::context::Context;
use crate::{Builder, Error, Event, Executor, Options};

/// What containers find programs by if their image does not say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A build that runs.
pub struct Build<'a> {
    pub builder: &'a Builder,
    pub context: &'a Context,
    pub options: &'a Options,
    pub executor: &'a dyn Executor,
    clock: &'a dyn Fn() -> Timestamp,
    on_event: &'a mut dyn FnMut(Event<'_>),
    pub pins: Pins<'a>,
    pub escape: char,
    pub arguments: Arguments,
    /// Results of the stages before, in order.
    done: Vec<(Option<String>, Option<Arc<StoredImage>>)>,
    pub state: StageState,
    step: usize,
    steps: usize,
    /// What the cache may give; `None`: anything.
    cache: Option<BTreeSet<Digest>>,
}

/// The stage that is being built.
#[derive(Debug, Default)]
pub struct StageState {
    /// What the next instruction builds on; `None` is nothing at all.
    pub image: Option<Arc<StoredImage>>,
    pub config: Config,
    pub author: String,
    /// This stage has set a command.
    pub cmd_set: bool,
    pub platform: Platform,
    /// An instruction was not found in the cache, so none after it is looked for.
    pub cache_missed: bool,
}

impl<'a> Build<'a> {
    pub fn new(
        builder: &'a Builder,
        context: &'a Context,
        options: &'a Options,
        executor: &'a dyn Executor,
        clock: &'a dyn Fn() -> Timestamp,
        on_event: &'a mut dyn FnMut(Event<'_>),
    ) -> Build<'a> {
        let host = Platform::host();
        let target = options.platform.clone().unwrap_or_else(|| host.clone());
        Build {
            builder,
            context,
            options,
            executor,
            clock,
            on_event,
            pins: builder.images.pins(),
            escape: '\\',
            arguments: Arguments::new(&options.build_args, &target, &host),
            done: Vec::new(),
            state: StageState::default(),
            step: 0,
            steps: 0,
            cache: cache_of(&builder.images, &options.cache_from),
        }
    }

    pub fn text(&mut self, text: &str) {
        (self.on_event)(Event::Text(text));
    }

    pub fn event(&mut self, event: Event<'_>) {
        (self.on_event)(event);
    }

    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Builds all stages up to the target.
    pub fn run(&mut self, mut file: Dockerfile) -> Result<Arc<StoredImage>, Error> {
        self.escape = file.directives.escape;
        self.cut_at_target(&mut file.stages)?;
        self.add_labels(&mut file.stages);
        self.steps =
            file.arguments.len() + file.stages.iter().map(|stage| stage.steps.len() + 1).sum::<usize>();
        for step in &file.arguments {
            self.announce(&step.text);
            self.global_argument(step)?;
        }
        for stage in &file.stages {
            self.stage(stage)?;
        }
        let unused = self.arguments.unused().join(" ");
        if !unused.is_empty() {
            self.text(&format!("[Warning] One or more build-args [{unused}] were not consumed\n"));
        }
        let last = self.done.pop().and_then(|(_, image)| image);
        last.ok_or_else(|| Error::Invalid("No image was generated. Is your Dockerfile empty?".into()))
    }

    fn cut_at_target(&self, stages: &mut Vec<Stage>) -> Result<(), Error> {
        let target = &self.options.target;
        if target.is_empty() {
            return Ok(());
        }
        let by_name = stages
            .iter()
            .position(|stage| stage.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(target)));
        let by_number = target.parse::<usize>().ok().filter(|number| *number < stages.len());
        let last = by_name
            .or(by_number)
            .ok_or_else(|| Error::Invalid(format!("target stage {target:?} could not be found")))?;
        stages.truncate(last + 1);
        Ok(())
    }

    /// `--label` is one more instruction of the last stage.
    fn add_labels(&self, stages: &mut [Stage]) {
        let (Some(stage), false) = (stages.last_mut(), self.options.labels.is_empty()) else { return };
        let quote = |text: &String| format!("'{}'", text.replace('\'', "'\"'\"'"));
        let pairs: Vec<(String, String)> =
            self.options.labels.iter().map(|(name, value)| (quote(name), quote(value))).collect();
        let shown: Vec<String> =
            self.options.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let text = format!("LABEL {}", shown.join(" "));
        stage.steps.push(Step { instruction: Instruction::Label(pairs), text, line: stage.line });
    }

    fn announce(&mut self, text: &str) {
        self.step += 1;
        let line = format!("Step {}/{} : {text}\n", self.step, self.steps);
        self.text(&line);
    }

    fn global_argument(&mut self, step: &Step) -> Result<(), Error> {
        let Instruction::Arg(arguments) = &step.instruction else { return Ok(()) };
        for (name, default) in arguments {
            let default = default.as_ref().map(|text| self.in_from(text, step.line)).transpose()?;
            self.arguments.declare_global(name, default);
        }
        Ok(())
    }

    /// Expands what only sees the arguments before the first `FROM`.
    fn in_from(&self, text: &str, line: usize) -> Result<String, Error> {
        expand::word(text, self.escape, &|name| self.arguments.in_from(name))
            .map_err(|what| Error::Instruction { line, what })
    }

    /// Expands what sees the environment and the arguments of the stage.
    pub fn expand(&self, text: &str) -> Result<String, String> {
        expand::word(text, self.escape, &|name| self.lookup(name))
    }

    pub fn lookup(&self, name: &str) -> Option<String> {
        env_value(&self.state.config.env, name).or_else(|| self.arguments.get(name))
    }

    fn stage(&mut self, stage: &Stage) -> Result<(), Error> {
        self.check_cancelled()?;
        self.announce(&stage.text);
        self.begin(stage)?;
        self.tell_image();
        self.triggers()?;
        for step in &stage.steps {
            self.check_cancelled()?;
            self.announce(&step.text);
            self.instruction(step)?;
            self.tell_image();
        }
        if let Some(image) = self.state.image.clone() {
            self.event(Event::Image(&image.id));
        }
        self.done.push((stage.name.clone(), self.state.image.clone()));
        Ok(())
    }

    fn check_cancelled(&self) -> Result<(), Error> {
        if self.options.cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn tell_image(&mut self) {
        let id = self.state.image.as_ref().map(|image| image.id.short().to_owned()).unwrap_or_default();
        self.text(&format!(" ---> {id}\n"));
    }

    fn begin(&mut self, stage: &Stage) -> Result<(), Error> {
        self.arguments.begin_stage();
        let base = self.in_from(&stage.base, stage.line)?;
        if base.is_empty() {
            return Err(Error::Invalid(format!("base name ({}) should not be blank", stage.base)));
        }
        let platform = match &stage.platform {
            Some(text) => Some(self.in_from(text, stage.line)?).filter(|text| !text.is_empty()),
            None => None,
        };
        let platform = match platform {
            Some(text) => Some(Platform::parse(&text).map_err(|error| Error::Invalid(error.to_string()))?),
            None => self.options.platform.clone(),
        };
        let image = match self.stage_result(&base) {
            Some(image) => image,
            None if base.eq_ignore_ascii_case("scratch") => None,
            None => Some(self.find_image(&base, platform.as_ref(), self.options.pull)?),
        };
        let mut config = image.as_ref().map(|image| image.config.config.clone()).unwrap_or_default();
        if env_value(&config.env, "PATH").is_none() {
            config.env.push(DEFAULT_PATH.to_owned());
        }
        self.state = StageState {
            author: image.as_ref().map(|image| image.config.author.clone()).unwrap_or_default(),
            platform: match &image {
                Some(image) => image.config.platform(),
                None => platform.unwrap_or_else(Platform::host),
            },
            image,
            config,
            cmd_set: false,
            cache_missed: false,
        };
        Ok(())
    }

    /// What an earlier stage of this name made.
    fn stage_result(&self, name: &str) -> Option<Option<Arc<StoredImage>>> {
        let named = |(stage, _): &&(Option<String>, _)| {
            stage.as_ref().is_some_and(|stage| stage.eq_ignore_ascii_case(name))
        };
        self.done.iter().rev().find(named).map(|(_, image)| image.clone())
    }

    /// What `--from` means: a stage by name or number, or an image.
    pub fn source_image(&mut self, from: &str) -> Result<Option<Arc<StoredImage>>, Error> {
        if let Some(result) = self.stage_result(from) {
            return Ok(result);
        }
        if let Ok(number) = from.parse::<usize>() {
            return match self.done.get(number) {
                Some((_, image)) => Ok(image.clone()),
                None => Err(Error::Invalid(format!("invalid from flag value {from}: invalid context value"))),
            };
        }
        if from.eq_ignore_ascii_case("scratch") {
            return Err(Error::Invalid("\"COPY --from scratch\" is not supported".into()));
        }
        self.find_image(from, self.options.platform.clone().as_ref(), false).map(Some)
    }

    fn find_image(
        &mut self,
        name: &str,
        platform: Option<&Platform>,
        fetch: bool,
    ) -> Result<Arc<StoredImage>, Error> {
        let images = &self.builder.images;
        let local = images.find(name, platform).map(|found| found.image);
        match local {
            Ok(image) if !fetch => return Ok(image),
            Ok(_) => {}
            Err(error) if error.kind() != images::Kind::NotFound => return Err(error.into()),
            Err(_) => {}
        }
        let reference = Reference::parse(name).map_err(images::Error::from)?.or_latest();
        let host = Platform::host();
        let on_event = &mut *self.on_event;
        self.executor
            .fetch(&reference, platform.unwrap_or(&host), &mut |text| on_event(Event::Text(text)))
            .map_err(Error::Executor)?;
        Ok(self.builder.images.find(name, platform)?.image)
    }

    /// What the base image wants to be done first in every image that is built on it.
    fn triggers(&mut self) -> Result<(), Error> {
        let triggers = std::mem::take(&mut self.state.config.on_build);
        if triggers.is_empty() {
            return Ok(());
        }
        let plural = if triggers.len() == 1 { "" } else { "s" };
        self.text(&format!("# Executing {} build trigger{plural}\n", triggers.len()));
        for trigger in triggers {
            let step = dockerfile::parse_trigger(&trigger)?;
            if matches!(step.instruction, Instruction::Onbuild(_) | Instruction::Maintainer(_)) {
                let what = format!("{} isn't allowed as an ONBUILD trigger", step.instruction.keyword());
                return Err(Error::Invalid(what));
            }
            self.instruction(&step)?;
        }
        Ok(())
    }

    /// The image that the same instruction has made from the same image before.
    pub fn cached(&mut self, created_by: &str, config: &Config) -> Option<Arc<StoredImage>> {
        if self.options.no_cache || self.state.cache_missed {
            return None;
        }
        let parent = self.state.image.as_ref();
        let found =
            self.builder.images.catalog().children(parent.map(|image| &image.id)).into_iter().find(|child| {
                // An image that came from elsewhere has no parent either; one step from scratch is one step long.
                let from_here = parent.is_some() || child.config.history.len() == 1;
                let step = child.config.history.last();
                from_here
                    && self.cache.as_ref().is_none_or(|allowed| allowed.contains(&child.id))
                    && step.is_some_and(|step| step.created_by == created_by)
                    && child.config.config == *config
                    && child.config.author == self.state.author
                    && child.config.platform() == self.state.platform
            });
        if found.is_none() {
            self.state.cache_missed = true;
        }
        found
    }

    /// Goes on with an image from the cache.
    pub fn use_cached(&mut self, image: Arc<StoredImage>) {
        self.text(" ---> Using cache\n");
        self.state.image = Some(image);
    }

    /// Makes the next image.
    pub fn commit(&mut self, created_by: String, layer: Option<NewLayer>) -> Result<(), Error> {
        let new = NewImage {
            parent: self.state.image.clone(),
            layer,
            config: self.state.config.clone(),
            author: self.state.author.clone(),
            comment: String::new(),
            created_by,
            platform: self.state.platform.clone(),
            references: Vec::new(),
            container: None,
            now: self.now(),
        };
        let created = self.builder.images.maker().create(new, &mut self.pins)?;
        self.state.image = Some(created.image);
        Ok(())
    }

    pub fn output(&mut self) -> &mut dyn FnMut(Event<'_>) {
        self.on_event
    }
}

/// The images of these names, and all that they were built on.
fn cache_of(images: &Images, names: &[String]) -> Option<BTreeSet<Digest>> {
    if names.is_empty() {
        return None;
    }
    let mut allowed = BTreeSet::new();
    for name in names {
        let mut next = images.resolve(name).ok();
        while let Some(image) = next.take() {
            if allowed.insert(image.id.clone()) {
                next = image.parent.as_ref().and_then(|parent| images.resolve(&parent.to_string()).ok());
            }
        }
    }
    Some(allowed)
}

/// Names of the environment.
pub fn env_names(env: &[String]) -> BTreeMap<&str, ()> {
    env.iter().map(|entry| (entry.split_once('=').map_or(entry.as_str(), |(name, _)| name), ())).collect()
}
