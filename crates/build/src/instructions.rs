//! What each instruction does.

use dockerfile::{Instruction, Step};
use rustix::fs::{Mode, OFlags};

use crate::changes::{self, shell};
use crate::stage::Build;
use crate::{Error, copy, run};

impl Build<'_> {
    pub fn instruction(&mut self, step: &Step) -> Result<(), Error> {
        let line = step.line;
        let bad = |what| Error::Instruction { line, what };
        match &step.instruction {
            Instruction::Run(command) => run::run(self, command),
            Instruction::Copy(instruction) => copy::copy(self, "COPY", instruction, None),
            Instruction::Add(instruction) => copy::copy(self, "ADD", &instruction.copy, Some(instruction)),
            Instruction::Arg(arguments) => {
                let mut shown = Vec::new();
                for (name, default) in arguments {
                    let name = self.expand(name).map_err(bad)?;
                    let default = default.as_ref().map(|text| self.expand(text)).transpose().map_err(bad)?;
                    shown.push(match &default {
                        Some(value) => format!("{name}={value}"),
                        None => name.clone(),
                    });
                    self.arguments.declare(&name, default);
                }
                self.without_layer(&format!("ARG {}", shown.join(" ")))
            }
            Instruction::Maintainer(author) => {
                self.state.author.clone_from(author);
                self.without_layer(&format!("MAINTAINER {author}"))
            }
            other => {
                let expanded =
                    changes::expanded(other, self.escape, &|name| self.lookup(name)).map_err(bad)?;
                let mut config = self.state.config.clone();
                let text =
                    changes::apply_one(&mut config, &expanded, &mut self.state.cmd_set).map_err(bad)?;
                self.state.config = config;
                if matches!(expanded, Instruction::Workdir(_)) {
                    return self.make_working_directory(&text);
                }
                self.without_layer(&text)
            }
        }
    }

    /// The history's text of an instruction that runs nothing.
    pub fn nothing_run(&self, text: &str) -> String {
        let mut words = shell(&self.state.config);
        words.push("#(nop) ".into());
        words.push(text.to_owned());
        words.join(" ")
    }

    /// An instruction that changes only the configuration.
    fn without_layer(&mut self, text: &str) -> Result<(), Error> {
        let created_by = self.nothing_run(text);
        let config = self.state.config.clone();
        match self.cached(&created_by, &config) {
            Some(image) => {
                self.use_cached(image);
                Ok(())
            }
            None => self.commit(created_by, None),
        }
    }

    /// `WORKDIR` makes the directory if it is not there.
    fn make_working_directory(&mut self, text: &str) -> Result<(), Error> {
        let created_by = self.nothing_run(text);
        let config = self.state.config.clone();
        if let Some(image) = self.cached(&created_by, &config) {
            self.use_cached(image);
            return Ok(());
        }
        let path = config.working_dir.clone();
        let layer = copy::with_layer(self, |root| {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            if root.open(path.as_ref(), flags, Mode::empty()).is_ok() {
                return Ok(false);
            }
            copy::make_directories(root, &path, None)?;
            Ok(true)
        })?;
        self.commit(created_by, layer)
    }
}
