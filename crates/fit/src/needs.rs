//! What a table of runs, or a question, must say for a law: sizes and tokens that the law does not read may be absent.

use crate::form::Variable as FormVariable;
use crate::law::{Laws, Variable};

/// What is read. By default what laws of params and tokens read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) params: bool,
    /// Total params, for which params stand in where the table has no others.
    pub(crate) params_total: bool,
    pub(crate) tokens: bool,
    pub(crate) flops: bool,
    /// The law by name, for errors.
    pub(crate) law: Option<&'static str>,
}

impl Default for Needs {
    fn default() -> Self {
        Self { params: true, params_total: false, tokens: true, flops: false, law: None }
    }
}

impl Needs {
    pub(crate) fn of(laws: Laws) -> Self {
        match laws {
            Laws::Auto => Self::default(),
            Laws::One(law) => {
                let reads = |variable| law.terms.iter().any(|t| t.factors.iter().any(|f| f.variable == variable));
                Self {
                    params: reads(Variable::Params),
                    tokens: reads(Variable::Tokens),
                    law: Some(law.name),
                    ..Self::default()
                }
            }
            Laws::Form(form) => {
                let reads = |variable| form.reads.contains(&variable);
                Self {
                    params: reads(FormVariable::Params),
                    params_total: reads(FormVariable::ParamsTotal),
                    tokens: reads(FormVariable::Tokens) || reads(FormVariable::TokensUnique),
                    flops: reads(FormVariable::Flops),
                    law: Some(form.name),
                }
            }
        }
    }

    /// Of what a table has, the first thing that it lacks.
    pub(crate) fn lacks(&self, params: bool, params_total: bool, tokens: bool, flops: bool) -> Option<&'static str> {
        // Any two of the three give the third.
        let (size, data) = (params || (flops && tokens), tokens || (flops && params));
        match () {
            () if self.params && !size => Some("params"),
            () if self.params_total && !size && !params_total => Some("params_total"),
            () if self.tokens && !data => Some("tokens"),
            () if self.flops && !flops && !(size && data) => Some("flops"),
            () => None,
        }
    }

    /// ", which the law clark reads", where one was named.
    pub(crate) fn by(&self) -> String {
        self.law.map(|law| format!(", which the law {law} reads")).unwrap_or_default()
    }
}
