//! The HTML report, as a browser shows it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::agent::PLAYBOOK;
use lab::browser::Browser;
use lab::error::LabError;
use lab::fixture::Migrated;
use lab::workplace::lab_subdir;
use lab::{apt, tool};

const TELEPHONE: u32 = 390;
const DESK: u32 = 1280;

fn report(site: &Migrated) -> Result<PathBuf, LabError> {
    let output = site.run(&["report", &Migrated::playbook(), "-o", "report.html"])?;
    assert!(output.status.success(), "{output:?}");
    Ok(site.path().join("report.html"))
}

/// Cuts the journal after the last record that says this: a run that was killed there.
fn kill_after(site: &Migrated, text: &str) {
    let journal = fs::read_to_string(site.journal()).expect("the journal");
    let at = journal.rfind(text).expect("the record is there");
    let end = at + journal[at..].find('\n').expect("its line ends") + 1;
    fs::write(site.journal(), &journal[..end]).expect("write");
}

#[test]
fn a_person_can_read_the_report_on_a_telephone_and_at_a_desk_by_day_and_by_night()
-> Result<(), LabError> {
    let site = Migrated::new()?;
    let file = report(&site)?;
    let pictures = lab_subdir("report")?;
    let mut browser = Browser::start()?;
    for (width, scheme) in [
        (TELEPHONE, "light"),
        (TELEPHONE, "dark"),
        (DESK, "light"),
        (DESK, "dark"),
    ] {
        browser.open(&file, width, scheme)?;
        looks_right(&mut browser, width)?;
        browser.photograph(&pictures.join(format!("{width}-{scheme}.png")))?;
    }
    Ok(())
}

/// No sideways scrolling, nothing fetched, nothing to complain about.
fn looks_right(browser: &mut Browser, width: u32) -> Result<(), LabError> {
    let wide = browser.evaluate("document.documentElement.scrollWidth")?;
    assert!(
        wide.as_u64() <= Some(width.into()),
        "{width} px wide, and its content {wide} px"
    );
    let outside: Vec<_> = browser
        .requests
        .iter()
        .filter(|url| !url.ends_with("/report.html") && !url.starts_with("data:"))
        .collect();
    assert!(outside.is_empty(), "the page asked for {outside:?}");
    assert!(browser.console.is_empty(), "{:?}", browser.console);
    Ok(())
}

#[test]
fn tasks_unfold_at_a_click_and_with_the_keyboard_and_stay_inside_the_page() -> Result<(), LabError>
{
    let site = Migrated::new()?;
    let file = report(&site)?;
    let mut browser = Browser::start()?;
    for width in [TELEPHONE, DESK] {
        browser.open(&file, width, "light")?;
        let open = "document.querySelectorAll('details[open]').length";
        assert_eq!(browser.evaluate(open)?, 0);
        browser.click("#tasks details summary")?;
        assert_eq!(browser.evaluate(open)?, 1, "a click unfolds a task");
        let shown = browser.evaluate("document.querySelector('details[open] dl').offsetHeight")?;
        assert!(
            shown.as_u64() > Some(20),
            "what unfolded can be seen: {shown} px"
        );
        browser.evaluate("document.querySelector('#logs details summary').focus()")?;
        browser.press("Enter", 13)?;
        assert_eq!(browser.evaluate(open)?, 2, "the keyboard unfolds a log");
        // With everything unfolded the page is still no wider than the window.
        browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")?;
        looks_right(&mut browser, width)?;
    }
    Ok(())
}

#[test]
fn a_screen_reader_finds_headings_landmarks_and_a_name_for_everything() -> Result<(), LabError> {
    let site = Migrated::new()?;
    let file = report(&site)?;
    let mut browser = Browser::start()?;
    browser.open(&file, DESK, "light")?;
    let levels = browser
        .evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1]))")?;
    let levels: Vec<u64> = levels
        .as_array()
        .expect("levels")
        .iter()
        .filter_map(|l| l.as_u64())
        .collect();
    assert_eq!(levels.first(), Some(&1));
    assert!(
        levels.windows(2).all(|pair| pair[1] <= pair[0] + 1),
        "a level is left out: {levels:?}"
    );
    for (what, count) in [
        ("main", 1),
        ("nav[aria-label]", 1),
        ("html[lang]", 1),
        ("a.skip[href='#content']", 1),
        ("svg[role=img][aria-label]", 1),
        ("section:not([aria-labelledby])", 0),
        ("th:not([scope])", 0),
        ("a[href^='#']:not([href='#'])", 12),
    ] {
        let found = browser.evaluate(&format!("document.querySelectorAll(\"{what}\").length"))?;
        assert_eq!(found, count, "{what}");
    }
    let broken = browser.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href')).filter(h => !document.querySelector(h))",
    )?;
    assert_eq!(broken, serde_json::json!([]), "links that lead nowhere");
    // Contrast of text against what is behind it, by the formula of WCAG 2, in both schemes.
    for scheme in ["light", "dark"] {
        browser.open(&file, DESK, scheme)?;
        let poor = browser.evaluate(CONTRAST)?;
        assert_eq!(
            poor,
            serde_json::json!([]),
            "{scheme}: text that is hard to read"
        );
    }
    Ok(())
}

/// Texts with a contrast below 4.5.
const CONTRAST: &str = r"(() => {
  const parse = c => { const m = c.match(/[\d.]+/g).map(Number); return m.length > 3 && m[3] === 0 ? null : m; };
  const light = c => { const f = c.slice(0, 3).map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c) return c; } return [255, 255, 255]; };
  const poor = new Set();
  for (const e of document.querySelectorAll('p,li,dt,dd,th,td,summary,span,code,pre,a,h1,h2,h3,caption,strong')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.closest('.skip')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.add(e.tagName + '.' + e.className + ' ' + ratio.toFixed(2));
  }
  return [...poor];
})()";

#[test]
fn the_report_is_valid_html_and_holds_no_secret() -> Result<(), LabError> {
    let site = Migrated::new()?;
    let file = report(&site)?;
    valid(&file)?;
    let text = fs::read_to_string(&file).expect("the report");
    assert!(
        text.contains("[hidden]"),
        "what was hidden is told as hidden"
    );
    // The fixture's database password, wherever it may stand as a value.
    for secret in [
        "PGPASSWORD=pacs",
        "POSTGRES_PASSWORD&quot;: &quot;pacs",
        "login_password&quot;: &quot;pacs",
    ] {
        assert!(!text.contains(secret), "{secret}");
    }
    Ok(())
}

fn valid(file: &Path) -> Result<(), LabError> {
    // Whichever test comes first may install it.
    apt::ensure("tidy", "tidy")?;
    let mut tidy = Command::new("tidy");
    // It ends with 1 after a warning, and with 2 after an error.
    tidy.args(["-quiet", "-errors", "--drop-empty-elements", "no"])
        .arg(file);
    tool::run(&mut tidy, "validate the report").map(|_| ())
}

#[test]
fn the_report_of_a_killed_run_says_how_far_it_is_and_what_is_still_to_come() -> Result<(), LabError>
{
    let site = Migrated::new()?;
    kill_after(
        &site,
        "\"event\":\"service_started\",\"service\":\"pacs_new\"",
    );
    let file = report(&site)?;
    valid(&file)?;
    let mut browser = Browser::start()?;
    browser.open(&file, TELEPHONE, "light")?;
    looks_right(&mut browser, TELEPHONE)?;
    let verdict = browser.evaluate("document.querySelector('.verdict').innerText")?;
    let verdict = verdict.as_str().expect("text");
    assert!(verdict.contains("it can be continued"), "{verdict}");
    let done = browser.evaluate("document.querySelector('progress').value")?;
    let total = browser.evaluate("document.querySelector('progress').max")?;
    assert!(
        done.as_u64() > Some(30) && done.as_u64() < total.as_u64(),
        "{done} of {total}"
    );
    let pending = browser.evaluate("document.querySelector('#pending').innerText")?;
    let pending = pending.as_str().expect("text");
    assert!(
        pending.contains("Restore the updated dump into the 0.3 database"),
        "{pending}"
    );
    assert!(!pending.contains("Dump it"), "{pending}");
    browser.photograph(&lab_subdir("report")?.join("killed.png"))?;
    Ok(())
}

#[test]
fn without_the_playbook_the_report_still_tells_what_was_done() -> Result<(), LabError> {
    let site = Migrated::new()?;
    fs::remove_file(site.path().join(Migrated::playbook())).expect("remove");
    let output = site.run(&["report", &format!("playbooks/{PLAYBOOK}.yaml"), "-o", "-"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains(">Done</h2>"),
        "{output:?}"
    );
    assert!(text.contains("29 equal in full, 8 equal in all columns that no script changes"));
    Ok(())
}
