"""Records of a gallery: its photos as compact columns, and the questions that sort and filter them."""

from classlens.render.gallery_record.questions import QUESTIONS as QUESTIONS
from classlens.render.gallery_record.questions import Question as Question
from classlens.render.gallery_record.record import gallery_record as gallery_record
