"""The mobile site's pages: plain, large, in Japanese and English. `data-state` tells a program what a person reads."""

from dataclasses import dataclass
from html import escape
from secrets import token_urlsafe
from string import Template

from starlette.responses import HTMLResponse

from tsm.errors import ErrorCode
from tsm.mas.launch import LaunchParameters

PAGE = Template("""\
<!DOCTYPE html>
<html lang="ja">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style nonce="$nonce">
body { font: 1.25rem/1.6 sans-serif; max-width: 32rem; margin: 0 auto; padding: 1rem; }
input, button { font: inherit; box-sizing: border-box; width: 100%; padding: .6rem; margin-bottom: 1rem; }
[lang="en"] { color: #444; }
</style>
</head>
<body>
<main data-state="$state">
<h1>$title</h1>
$body
</main>
$script</body>
</html>
""")

FORM = Template("""\
<form method="post" action="/mobile/personalise" autocomplete="off">
<input type="hidden" name="iccid" value="$iccid">
<label>アクセスコード <span lang="en">Access code</span>
<input name="accessCode" inputmode="numeric" required></label>
<label>パスワード <span lang="en">Password</span>
<input name="password" type="password" required></label>
<label>利用者証明用暗証番号（数字4桁） <span lang="en">PIN for user authentication (4 digits)</span>
<input name="authenticationPin" type="password" inputmode="numeric" pattern="[0-9]{4}" required></label>
<label>署名用パスワード（6～16文字 A-Z 0-9）
<span lang="en">Password for signatures (6 to 16 characters A-Z 0-9)</span>
<input name="signaturePin" type="password" pattern="[A-Za-z0-9]{6,16}" required></label>
<button>書き込む / Write to the card</button>
</form>""")


@dataclass(frozen=True, slots=True)
class Text:
    """One thing to say, in both languages."""

    ja: str
    en: str

    def html(self) -> str:
        return f'<p>{escape(self.ja)}</p>\n<p lang="en">{escape(self.en)}</p>'


LAUNCHING = Text("共通アプリを起動しています。画面を閉じないでください。", "Starting the app. Please keep this open.")
READY = Text("準備ができました。交付票と、これから使う暗証番号を入力してください。",
             "Ready. Enter what your slip says, and the PINs that you choose.")  # fmt: skip
WRITTEN = Text("電子証明書の書込みが終わりました。", "The certificates are written to your card.")
PENDING = Text("カードへの書込みは終わりました。確認が届くまでお待ちください。",
               "The card is written. The confirmation is still on its way.")  # fmt: skip
FAILED = Text("処理が完了しませんでした。もう一度お試しください。", "It was not completed. Please try again.")

REFUSALS: dict[ErrorCode, Text] = {
    ErrorCode.INVALID_INPUT: Text("入力内容を確認してください。", "Please check what you entered."),
    ErrorCode.FORBIDDEN: Text("最初からやり直してください。", "Please begin again."),
    ErrorCode.UNKNOWN_CARD: Text("このカードは登録されていません。", "This card is not registered."),
    ErrorCode.CARD_ON_HOLD: Text("このカードは一時停止中です。窓口で解除してください。",
                                 "This card is on hold. It is released at the counter."),
    ErrorCode.UNKNOWN_KEY: Text("新しい電子証明書はありません。", "There is no new certificate for your card."),
    ErrorCode.BAD_SIGNATURE: Text("結果を確認できませんでした。", "The result could not be verified."),
    ErrorCode.ACCESS_CODE_REFUSED: Text("アクセスコードまたはパスワードが違います。",
                                        "The access code or the password is wrong."),
    ErrorCode.ACCESS_CODE_EXPIRED: Text("アクセスコードの有効期限が切れています。窓口でもう一度お申し込みください。",
                                        "The access code has expired. Please apply again at the counter."),
    ErrorCode.ACCESS_CODE_LOCKED: Text("アクセスコードは使えなくなりました。窓口でもう一度お申し込みください。",
                                       "The access code is locked. Please apply again at the counter."),
    ErrorCode.UPSTREAM_UNAVAILABLE: Text("ただいま利用できません。しばらくしてからお試しください。",
                                         "Not available at the moment. Please try later."),
}  # fmt: skip


def page(state: str, text: Text, *, body: str = "", script: str = "", status: int = 200) -> HTMLResponse:
    """A page that runs nothing but the script given here and is kept nowhere."""
    nonce = token_urlsafe(16)
    html = PAGE.substitute(
        title="スマートフォン用電子証明書 / Certificates in your phone",
        state=state,
        nonce=nonce,
        body=f"{text.html()}\n{body}",
        script=f'<script nonce="{nonce}">{script}</script>\n' if script else "",
    )
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(html, status, headers)


def launch_page(parameters: LaunchParameters) -> HTMLResponse:
    """LAUNCH (MC-05 table 1-2). Encoded, the parameters hold nothing that would end a string or a script."""
    link = f'<p><a href="{escape(parameters.href())}">起動しない場合 / If nothing starts</a></p>'
    return page("launch", LAUNCHING, body=link, script=f'location.href="{parameters.href()}";')


def ready_page(iccid: str) -> HTMLResponse:
    return page("ready", READY, body=FORM.substitute(iccid=escape(iccid)))


def refusal_page(code: ErrorCode, status: int) -> HTMLResponse:
    return page("refused", REFUSALS.get(code, FAILED), body=f"<p>{code}</p>", status=status)


def failure_page(reason: str) -> HTMLResponse:
    """The MAS signed that it did not work."""
    return page("failed", FAILED, body=f"<p>{escape(reason)}</p>")
