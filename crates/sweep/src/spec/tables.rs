//! The tables that do not describe runs: replicates, budget, retry, fit, trainer, resources.

use std::collections::BTreeSet;

use super::diagnostic::Place;
use super::document::{Item, Node};
use super::fields::Reader;
use crate::hyper::HyperParameter;
use crate::trainer::FILES_MAX;

use super::{Budget, FitSpec, Holdout, Measure, Replicates, Resources, Retry, SpecError, Target, TrainerSpec};

/// Names of the laws that the fit knows, which stands above this crate; a test there compares them.
pub const LAWS: [&str; 20] = [
    "additive",
    "tied",
    "qlaw",
    "kaplan",
    "power-params",
    "power-tokens",
    "farseer",
    "finite-zipf",
    "saturation",
    "broken-0",
    "broken-1",
    "broken-2",
    "broken-3",
    "data-constrained",
    "clark",
    "separable",
    "joint-moe-size",
    "granularity",
    "joint-moe",
    "sparsity",
];

/// The last part of a path, which is what a file is called beside the command.
pub(crate) fn plain_name(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|name| !matches!(*name, "" | "." | ".."))
}

impl Reader<'_> {
    pub(super) fn replicates(self, node: Option<Node>) -> Result<Replicates, SpecError> {
        let mut replicates = Replicates { seeds: 1, everywhere: true };
        if let Some(node) = node {
            let mut fields = self.fields("replicates", &node)?;
            replicates.seeds = fields.take("seeds").map_or(Ok(1), |node| self.count("seeds", &node, 1))?;
            let place = fields.take("where");
            let place = place.map_or(Ok("all"), |node| self.word("where", &node, &["all", "largest"]))?;
            replicates.everywhere = place == "all";
            fields.finish()?;
        }
        Ok(replicates)
    }

    pub(super) fn budget(self, node: Option<Node>) -> Result<Budget, SpecError> {
        let Some(node) = node else {
            return Ok(Budget::default());
        };
        let mut fields = self.fields("budget", &node)?;
        let amount = |name: &str, node: Option<Node>| -> Result<Option<(f64, Place)>, SpecError> {
            let read = |node: Node| self.number_within(name, &node, 0.0, f64::MAX).map(|amount| (amount, node.place));
            node.map(read).transpose()
        };
        let budget = Budget {
            flops: amount("flops", fields.take("flops"))?,
            gpu_hours: amount("gpu_hours", fields.take("gpu_hours"))?,
            wall_seconds: {
                let wall = fields.take("wall");
                wall.map(|node| self.seconds("wall", &node).map(|seconds| (seconds, node.place))).transpose()?
            },
        };
        fields.finish()?;
        Ok(budget)
    }

    pub(super) fn retry(self, node: Option<Node>) -> Result<Retry, SpecError> {
        let mut retry = Retry { failures: 1, preemptions: 100 };
        if let Some(node) = node {
            let mut fields = self.fields("retry", &node)?;
            if let Some(node) = fields.take("failures") {
                retry.failures = self.small("failures", &node, 0)?;
            }
            if let Some(node) = fields.take("preemptions") {
                retry.preemptions = self.small("preemptions", &node, 0)?;
            }
            fields.finish()?;
        }
        Ok(retry)
    }

    fn small(self, name: &str, node: &Node, least: u64) -> Result<u32, SpecError> {
        u32::try_from(self.count(name, node, least)?)
            .map_err(|_| self.wrong(node, format!("`{name}` is too large"), "expected under 2^32"))
    }

    pub(super) fn fit(self, node: Option<Node>) -> Result<FitSpec, SpecError> {
        let holdout = Holdout { fraction: 0.2, by: Measure::Flops };
        let mut fit = FitSpec { laws: Vec::new(), holdout, target: None, best_of: Vec::new() };
        let Some(node) = node else {
            return Ok(fit);
        };
        let mut fields = self.fields("fit", &node)?;
        if let Some(laws) = fields.take("laws") {
            fit.laws = self.laws(&laws)?;
        }
        if let Some(node) = fields.take("holdout") {
            fit.holdout = self.holdout(&node)?;
        }
        if let Some(node) = fields.take("best_of") {
            let Item::List(items) = &node.item else {
                return Err(self.wrong_kind("best_of", &node, "a list such as [\"learning_rate\"]"));
            };
            let word = |item: &Node| self.word("best_of", item, &HyperParameter::NAMES);
            fit.best_of = items
                .iter()
                .map(|item| word(item).map(|word| word.parse().expect("a word of the list")))
                .collect::<Result<_, _>>()?;
            fit.best_of.sort_unstable();
            fit.best_of.dedup();
        }
        if let Some(node) = fields.take("target") {
            let mut inner = self.fields("fit.target", &node)?;
            let mut positive = |name: &'static str| inner.take(name).map(|node| self.positive(name, &node)).transpose();
            let target = Target { flops: positive("flops")?, params: positive("params")?, tokens: positive("tokens")? };
            inner.finish()?;
            fit.target = Some(target);
        }
        fields.finish()?;
        Ok(fit)
    }

    /// `auto`, or the one law to fit, alone or in a list.
    fn laws(self, node: &Node) -> Result<Vec<String>, SpecError> {
        let (node, auto) = match &node.item {
            Item::List(items) => match items.as_slice() {
                [only] => (only, false),
                _ => {
                    let expected = format!("expected \"auto\" or one of {}", LAWS.join(", "));
                    return Err(self.wrong(node, "`laws` must name one law", expected));
                }
            },
            _ => (node, true),
        };
        let words: Vec<&'static str> = auto.then_some("auto").into_iter().chain(LAWS).collect();
        let word = self.word("laws", node, &words)?;
        Ok(if word == "auto" { Vec::new() } else { vec![word.to_owned()] })
    }

    /// `largest 20% by flops`.
    fn holdout(self, node: &Node) -> Result<Holdout, SpecError> {
        let text = self.text("holdout", node)?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let read = || {
            let ["largest", share, "by", measure] = words.as_slice() else {
                return None;
            };
            let percent: f64 = share.strip_suffix('%')?.parse().ok()?;
            let by = match *measure {
                "flops" => Measure::Flops,
                "params" => Measure::Params,
                "tokens" => Measure::Tokens,
                _ => return None,
            };
            (0.0..=90.0).contains(&percent).then_some(Holdout { fraction: percent / 100.0, by })
        };
        read().ok_or_else(|| {
            self.wrong(
                node,
                "`holdout` has the wrong form",
                "expected \"largest 20% by flops\", by params or by tokens",
            )
        })
    }

    pub(super) fn trainer(self, node: Option<Node>) -> Result<Option<TrainerSpec>, SpecError> {
        let Some(node) = node else {
            return Ok(None);
        };
        let mut fields = self.fields("trainer", &node)?;
        let trainer = TrainerSpec {
            command: self.texts("command", &fields.require("command")?)?,
            files: fields.take("files").map_or(Ok(Vec::new()), |node| self.trainer_files(&node))?,
            version: fields.take("version").map(|node| self.text("version", &node)).transpose()?,
        };
        fields.finish()?;
        Ok(Some(trainer))
    }

    fn trainer_files(self, node: &Node) -> Result<Vec<(String, Place)>, SpecError> {
        let paths = self.texts("files", node)?;
        let Item::List(items) = &node.item else { return Ok(Vec::new()) };
        if items.len() > FILES_MAX {
            return Err(self.wrong(node, "`files` is too long", format!("expected at most {FILES_MAX} files")));
        }
        let mut names = BTreeSet::new();
        let mut files = Vec::with_capacity(paths.len());
        for (path, item) in paths.into_iter().zip(items) {
            match plain_name(&path).map(|name| names.insert(name.to_owned())) {
                Some(true) => files.push((path, item.place)),
                Some(false) => {
                    let expected = "expected different names: all files lie in one folder";
                    return Err(self.wrong(item, "two files of the trainer have the same name", expected));
                }
                None => {
                    return Err(self.wrong(item, "`files` names no file", "expected a path such as tools/train.py"));
                }
            }
        }
        Ok(files)
    }

    fn priority(self, node: &Node) -> Result<u32, SpecError> {
        let priority = self.small("priority", node, 0)?;
        match priority {
            0..=100 => Ok(priority),
            _ => Err(self.wrong(node, format!("`priority` is {priority}"), "expected 0 to 100; 50 is usual")),
        }
    }

    /// With them the place of the memory, if it was written.
    pub(super) fn resources(self, node: Option<Node>) -> Result<(Resources, Option<Place>), SpecError> {
        let Some(node) = node else {
            return Ok((Resources::default(), None));
        };
        let mut fields = self.fields("resources", &node)?;
        let memory = fields.take("memory");
        let resources = Resources {
            threads: fields.take("threads").map(|node| self.small("threads", &node, 1)).transpose()?,
            memory_bytes: memory.as_ref().map(|node| self.bytes("memory", node)).transpose()?,
            priority: fields.take("priority").map(|node| self.priority(&node)).transpose()?,
        };
        fields.finish()?;
        Ok((resources, memory.map(|node| node.place)))
    }
}
