//! `submit`: hands a sweep to the coordinator. Handing it in again adds nothing.

use isoloss_wire::Client;
use isoloss_wire::api::{Submit, Submitted};

use crate::args::{Choosing, Format, Place, SweepFile};
use crate::exit::{Done, Exit};
use crate::next;
use crate::print;
use crate::remote::{block_on, connect};
use crate::watch;

pub(crate) fn run(place: &Place, sweep: &SweepFile, wait: bool, choosing: &Choosing) -> Done {
    let submit = crate::plan::read(sweep)?;
    let wish = choosing.wish()?;
    let client = connect(place)?;
    block_on(async {
        if let Some(wish) = &wish {
            let (submitted, end) = next::live::drive(&client, &submit, wish, true).await?;
            if place.format() == Format::Json {
                print::json(&submitted)?;
            }
            return watch::verdict(&end, &watch::ask_status(&end));
        }
        let submitted = hand_in(&client, &submit).await?;
        match place.format() {
            Format::Json => print::json(&submitted)?,
            Format::Table | Format::Csv => print::line(&submitted.sweep_id.to_string()),
        }
        if !wait {
            return Ok(());
        }
        let end = watch::follow(&client, &submitted.sweep_id.to_string(), true).await?;
        watch::verdict(&end, &watch::ask_status(&end))
    })
}

/// Submits and says in one line what that meant.
pub(crate) async fn hand_in(client: &Client, submit: &Submit) -> Result<Submitted, Exit> {
    let submitted = client.submit(submit).await?;
    let Submitted { name, runs, added, reused, revived, failed, paused, .. } = &submitted;
    let mut said = format!("sweep {name}: {runs} runs, {added} new, {reused} with a result already");
    if *revived > 0 {
        said.push_str(&format!(", {revived} that were cancelled wait again"));
    }
    if *failed > 0 {
        let id = submitted.sweep_id.short();
        said.push_str(&format!(", {failed} failed before: `isoloss retry {id} --failed` tries them again"));
    }
    print::note(&said);
    if let Some(words) = needs(&submitted) {
        print::note(&words);
    }
    if *paused && reused < runs {
        let id = submitted.sweep_id.short();
        print::note(&format!("it is paused, so no run of it starts: `isoloss resume {id}` lets it go on"));
    }
    Ok(submitted)
}

/// What the file says anew of memory and threads.
fn needs(submitted: &Submitted) -> Option<String> {
    let Submitted { amended, kept, .. } = submitted;
    let id = submitted.sweep_id.short();
    let of = match (amended, kept) {
        (0, 0) => return None,
        (0, kept) => {
            format!("{kept} run(s) under way keep the memory and threads that they were given; submit again after them")
        }
        (amended, 0) => format!("{amended} run(s) need other memory or threads from now on"),
        (amended, kept) => format!(
            "{amended} run(s) need other memory or threads from now on; {kept} under way keep what they were given"
        ),
    };
    let failed = if *amended > 0 {
        format!("; `isoloss retry --failed {id}` tries those again that failed")
    } else {
        String::new()
    };
    Some(of + &failed)
}
