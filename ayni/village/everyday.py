"""Everyday work of the village and how it is done: one line each."""

from __future__ import annotations

from ayni.seeds import rng
from ayni.village.knowledge import Split, Topic, phrases

# what | how | what an answer must say: groups divided by ";", choices inside a group by "/"
EVERYDAY = """
bake bread | Mix flour, water and salt, and bake the dough in a hot oven. | flour; bake; oven
make apple pie | Cut the apples, lay them on sweet dough and bake the pie until it is brown. | apples; dough; bake
make mint tea | Pour hot water over fresh mint leaves and wait five minutes. | hot water; mint leaves; wait
plant beans | Push the beans into soft earth and give them water every day. | soft earth / earth; water
milk a cow | Sit on a low stool, wash your hands and squeeze gently. | stool; squeeze
feed the hens | Throw a handful of corn on the ground and call the hens. | handful; corn
shear a sheep | Hold the sheep still and cut the wool with sharp shears. | hold; wool; shears
catch a fish | Put a worm on a hook and wait quietly by the river. | worm; hook; quietly
knit a scarf | Take soft wool and two needles, and knit row after row. | wool; needles
mend a sock | Close the hole with a needle and strong thread. | needle; thread
sharpen a knife | Rub the knife slowly along a wet stone. | rub; wet stone
paint a fence | Clean the fence first and then paint it with a wide brush. | clean; wide brush / brush
wash wool | Press the wool in warm water with a little soap. | warm water; soap
make butter | Shake cold cream in a jar until it turns thick. | cream; shake
make cheese | Warm the milk, let it turn thick and press it in a cloth. | milk; press; cloth
build a kite | Tie two thin sticks together, cover them with paper and add a tail. | sticks; paper; tail
build a bird house | Nail five boards together and leave a small round hole. | boards; hole
carve a spoon | Take soft wood and cut away thin pieces with a small knife. | soft wood / wood; knife
write a letter | Begin with a kind greeting, tell your news and sign your name. | greeting; news; name
polish shoes | Brush off the dust and rub in some wax with a cloth. | dust; wax
clean a window | Wipe the glass with warm water and dry it with paper. | wipe; glass; dry
grow roses | Give the roses sun and water, and cut them back in spring. | sun; water; spring
make candles | Melt the wax and dip a string into it many times. | melt; string
keep warm in winter | Wear two pairs of socks, a wool hat and a thick coat. | socks; hat / coat
fall asleep | Lie down in a dark room, breathe slowly and count sheep. | breathe; count
make a new friend | Smile, say your name and ask a kind question. | smile; kind question / question
make berry jam | Cook the berries with sugar and pour the jam into clean jars. | sugar; jars
cook pea soup | Boil the peas with an onion until they are soft. | boil; onion
clean a lamp | Let the lamp cool, then wipe it with a soft cloth. | cool; wipe; cloth
learn a song | Listen to it three times and then sing one line after another. | listen; sing
dry herbs | Tie the herbs together and hang them in a warm room. | tie; hang
make a paper boat | Fold a sheet of paper four times and pull out the corners. | fold; corners
"""


def everyday_topics(seed: int) -> list[Topic]:
    """The village's seed decides which are held out: a fifth for the test, a tenth for validation."""
    topics, rows = [], EVERYDAY.strip().splitlines()
    order = rng(seed, "everyday").permutation(len(rows))
    for place, row in zip(order, rows, strict=True):
        action, how, wanted = (part.strip() for part in row.split("|"))
        keys = tuple(phrases(*group.split("/")) for group in wanted.split(";"))
        part = place / len(rows)
        split: Split = "test" if part < 0.2 else "validation" if part < 0.3 else "train"
        topics.append(
            Topic(
                action=action,
                doing=action,
                how=(how, f"It is easy. {how}"),
                keys=keys,
                split=split,
                family="everyday",
                subject=phrases(action)[0].split()[-1],
            )
        )
    return topics
