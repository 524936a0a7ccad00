"""The pages of a verifier node, for auditors: behind a login, nothing private on them.

app = web_app(engine=engine, log=log, providers=["lab"], settings=WebSettings(accounts=path))

`web_app` is in `verifier_sdk.web.app`, its settings are in `verifier_sdk.web.settings`.
"""
