//! What HTML is written with.

use std::fmt::{self, Display, Write};

use crate::html::units::{Bytes, Count};
use crate::text::is_hidden;
use crate::view::{Overview, Tunnel};

/// More rows than these of a table are folded away.
pub(crate) const MAX_UNFOLDED_ROWS: usize = 20;

/// A page of HTML. Markup stands in the source, all else is escaped.
pub(crate) struct Page(pub String);

impl Page {
    pub(crate) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Between tags, or between the quotes of an attribute.
    pub(crate) fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing to a String does not fail.
        let _ = write!(Escaping(&mut self.0), "{text}");
        self
    }

    pub(crate) fn figure(&mut self, name: &'static str, value: impl Display) {
        self.raw("<div><dt>").text(name).raw("</dt><dd>").text(value).raw("</dd></div>\n");
    }

    pub(crate) fn fold(&mut self, title: &'static str, rows: usize) {
        self.raw(if rows > MAX_UNFOLDED_ROWS { "<details>\n" } else { "<details open>\n" });
        self.raw("<summary>").text(title).raw(" <span>").text(Count(rows as u64));
        self.raw("</span></summary>\n");
    }

    pub(crate) fn table(&mut self, columns: &[&'static str]) {
        self.raw("<table>\n");
        self.head(columns);
    }

    pub(crate) fn head(&mut self, columns: &[&'static str]) {
        self.raw("<thead><tr>");
        for column in columns {
            self.raw("<th scope=\"col\">").text(column).raw("</th>");
        }
        self.raw("</tr></thead>\n<tbody>\n");
    }

    /// On a narrow screen each cell says what it is.
    pub(crate) fn open_cell(&mut self, column: &'static str) -> &mut Self {
        self.raw("<td data-name=\"").raw(column).raw("\">")
    }

    /// For a long text.
    pub(crate) fn open_wide_cell(&mut self, column: &'static str) -> &mut Self {
        self.raw("<td class=\"wide\" data-name=\"").raw(column).raw("\">")
    }

    pub(crate) fn cell(&mut self, column: &'static str, value: impl Display) -> &mut Self {
        self.open_cell(column).text(value).raw("</td>")
    }

    pub(crate) fn number(&mut self, column: &'static str, value: impl Display) -> &mut Self {
        self.raw("<td class=\"number\" data-name=\"").raw(column).raw("\">");
        self.text(value).raw("</td>")
    }

    pub(crate) fn name(&mut self, column: &'static str, value: &str) -> &mut Self {
        self.raw("<th scope=\"row\" data-name=\"").raw(column).raw("\">");
        self.text(value).raw("</th>")
    }

    pub(crate) fn client(&mut self, tunnel: &Tunnel<'_>) -> &mut Self {
        let client = tunnel.client.to_canonical();
        self.text(std::net::SocketAddr::new(client, tunnel.port)).tls(tunnel.is_client_tls)
    }

    pub(crate) fn tls(&mut self, is_tls: bool) -> &mut Self {
        if is_tls { self.raw(" <small class=\"tls\">TLS</small>") } else { self }
    }

    pub(crate) fn traffic(&mut self, column: &'static str, bytes: u64, messages: u64) {
        self.raw("<td class=\"number\" data-name=\"").raw(column).raw("\" title=\"");
        self.text(bytes).raw(" bytes\">").text(Bytes(bytes)).raw("<br><small>");
        self.text(Count(messages));
        self.raw(if messages == 1 { " message" } else { " messages" }).raw("</small></td>");
    }

    pub(crate) fn counts(
        &mut self,
        title: &'static str,
        counts: impl Iterator<Item = (&'static str, u64)>,
    ) {
        self.raw("<div><h3>").text(title).raw("</h3>\n<dl>\n");
        let mut is_empty = true;
        for (name, value) in counts {
            is_empty = false;
            self.figure(name, Count(value));
        }
        self.raw("</dl>");
        if is_empty {
            self.raw("<p>none</p>");
        }
        self.raw("</div>\n");
    }

    pub(crate) fn hidden(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.raw("<input type=\"hidden\" name=\"").raw(name).raw("\" value=\"").text(value);
        self.raw("\">")
    }

    /// What each order needs.
    pub(crate) fn order(&mut self, overview: &Overview) -> &mut Self {
        self.hidden("action", "close").hidden("nonce", &overview.nonce)
    }
}

/// Escapes what a browser would take for markup, or what nobody would see.
struct Escaping<'a>(&'a mut String);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for sign in text.chars() {
            match sign {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                sign if is_hidden(sign) => write!(self.0, "{}", sign.escape_unicode())?,
                sign => self.0.push(sign),
            }
        }
        Ok(())
    }
}
