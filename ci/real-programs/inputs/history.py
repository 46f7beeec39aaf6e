"""Prints a history for git fast-import: one branch merged now and then, files that grow, change and are renamed."""

import random

choice = random.Random(7)
WORDS = [f"{a}{b}{c}" for a in "klmnprst" for b in "aeiou" for c in ("n", "rd", "sh", "ll", "ving")]


def line():
    return " ".join(choice.choice(WORDS) for _ in range(choice.randrange(3, 14)))


def data(text):
    return f"data {len(text)}\n{text}"


files = {f"file-{at}.txt": [line() for _ in range(choice.randrange(40, 300))] for at in range(60)}
for number in range(1, 601):
    changed = list(files) if number == 1 else choice.sample(sorted(files), 5)
    commands = []
    for name in changed:
        lines = files[name]
        for _ in range(choice.randrange(1, 12)):
            at = choice.randrange(len(lines))
            lines[at : at + choice.randrange(2)] = [line() for _ in range(choice.randrange(3))]
        lines.append(line())
        commands.append(f"M 100644 inline {name}\n{data(chr(10).join(lines) + chr(10))}")
    if number % 90 == 0:
        old, new = choice.choice(sorted(files)), f"renamed-{number}.txt"
        files[new] = files.pop(old)
        commands.append(f"R {old} {new}")
    branch = "refs/heads/side" if number % 7 in (3, 4) else "refs/heads/main"
    start = "reset refs/heads/side\nfrom refs/heads/main\n\n" if number % 7 == 3 else ""
    merge = "merge refs/heads/side\n" if number % 7 == 5 and number > 7 else ""
    person = f"Author {number % 9} <author-{number % 9}@example.org> {1600000000 + number * 3600} +0100"
    message = f"Change {number}: {line()}\n"
    print(f"{start}commit {branch}\nauthor {person}\ncommitter {person}\n{data(message)}{merge}" + "\n".join(commands))
print("done")
